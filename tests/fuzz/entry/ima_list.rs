#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::ima_list::check(data));
