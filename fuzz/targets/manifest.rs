#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: limbeck_fuzz::seed("manifest"), |bytes: &[u8]| limbeck_fuzz::read("manifest", bytes));
