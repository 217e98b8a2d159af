#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: limbeck_fuzz::seed("table"), |bytes: &[u8]| limbeck_fuzz::read("table", bytes));
