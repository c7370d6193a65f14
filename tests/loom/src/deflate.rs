//! Compression, which the models do not use.

#[path = "../../../src/deflate/bits.rs"]
mod bits;
#[path = "../../../src/deflate/compressor.rs"]
pub(crate) mod compressor;
#[path = "../../../src/deflate/huffman.rs"]
mod huffman;
#[path = "../../../src/deflate/inflater.rs"]
pub(crate) mod inflater;
