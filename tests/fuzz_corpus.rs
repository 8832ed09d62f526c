//! The fuzz targets over their committed corpora and some inputs of chance, on stable: what a fuzzer once found
//! stays found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::{env, fs};

pub(crate) use reqwest::Url;

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

/// Inputs of chance for each target; `FUZZ_INPUTS` says how many.
const INPUTS: u64 = 20;

fn replay(name: &str, target: targets::Target) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no corpus", corpus.display());
    for file in files {
        let input = fs::read(&file).unwrap();
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            panic!("the input is {}", file.display());
        }
    }
    let inputs = env::var("FUZZ_INPUTS").map_or(INPUTS, |count| count.parse().unwrap());
    for seed in 0..inputs {
        let mut random = fastrand::Rng::with_seed(seed);
        let input: Vec<u8> = (0..random.usize(..300)).map(|_| random.u8(..)).collect();
        if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
            panic!("the input of seed {seed}, as hexadecimal: {}", hex(&input));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

macro_rules! replayed {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), targets::$name);
            }
        )*

        #[test]
        fn none_is_left_out() {
            let names = targets::ALL.map(|(name, _)| name);
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

replayed! {
    token_answer lifetime challenge discovery redirect device_answer stored_record encrypted_record resent_request uri
}
