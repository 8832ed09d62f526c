//! Feeds libFuzzer's bytes to the target `token_answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tower_oauth2_client_fuzz::targets::token_answer(data));
