#![no_main]

use hublet_fuzz::meter::bounded;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bounded(bytes, hublet_fuzz::body::chunked));
