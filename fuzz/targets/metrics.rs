#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: limbeck_fuzz::seed("metrics"), |bytes: &[u8]| limbeck_fuzz::read("metrics", bytes));
