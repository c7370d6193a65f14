//! A failure that ends the process.

/// Why the process ends with a code other than 0.
#[derive(Debug)]
pub(crate) struct Failure {
    /// 1 for a failure while running, 2 for a flag or value that is not allowed.
    pub(crate) code: u8,
    /// What was wrong and what is allowed or can be done.
    pub(crate) sentence: String,
}

impl Failure {
    pub(crate) fn usage(sentence: impl Into<String>) -> Self {
        Self { code: 2, sentence: sentence.into() }
    }

    pub(crate) fn running(sentence: impl Into<String>) -> Self {
        Self { code: 1, sentence: sentence.into() }
    }
}
