//! The flags and their environment variables, both from one table.

mod env_file;
mod help;
pub(crate) mod options;
pub(crate) mod parse;
mod sets;
mod table;
pub(crate) mod value;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_secrets;
