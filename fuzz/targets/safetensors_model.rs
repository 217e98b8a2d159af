#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: limbeck_fuzz::seed("safetensors_model"), |bytes: &[u8]| limbeck_fuzz::read("safetensors_model", bytes));
