#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longseq_check::fuzz::selected_tables(data));
