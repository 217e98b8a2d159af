#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: limbeck_fuzz::seed("summary_of_run"), |bytes: &[u8]| limbeck_fuzz::read("summary_of_run", bytes));
