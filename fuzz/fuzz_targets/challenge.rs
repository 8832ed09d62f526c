//! Feeds libFuzzer's bytes to the target `challenge`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tower_oauth2_client_fuzz::targets::challenge(data));
