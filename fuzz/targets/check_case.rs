#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: limbeck_fuzz::seed("check_case"), |bytes: &[u8]| limbeck_fuzz::read("check_case", bytes));
