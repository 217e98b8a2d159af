//! Random damage that a seed repeats.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

/// What parsers stumble over, in texts and headers.
const TOKENS: [&[u8]; 30] = [
    b"0",
    b"-1",
    b"1e999",
    b"nan",
    b"-inf",
    b"65536",
    b"4294967295",
    b"9223372036854775807",
    b"18446744073709551615",
    b"18446744073709551616",
    b"2305843009213693951",
    b"0.00000000000000000001",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"[[a]]\n",
    b"a.b.c.d=1\n",
    b"(1, 1",
    b"(2)",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\end\\",
    b"<s> </s>",
    b"../",
    b"\n",
    b"\r\n",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x1f\x8b\x08\x1f",
    "\u{202e}\u{9b}é".as_bytes(),
];

/// A number below `bound`, which is not 0.
fn below(rng: &mut ChaCha8Rng, bound: usize) -> usize {
    rng.next_u64() as usize % bound
}

/// Where numbers are at the edge of something.
fn number(rng: &mut ChaCha8Rng) -> u64 {
    let around = 1u64.checked_shl(rng.next_u32() % 65).unwrap_or(0);
    match rng.next_u32() % 4 {
        0 => rng.next_u64(),
        1 => around,
        2 => around.wrapping_sub(1),
        _ => u64::from(rng.next_u32() % 8).wrapping_sub(4),
    }
}

/// The file with one to four changes.
pub fn mutate(rng: &mut ChaCha8Rng, valid: &[u8]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for _ in 0..1 + below(rng, 4) {
        change(rng, &mut bytes);
    }
    bytes
}

fn change(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>) {
    let at = below(rng, bytes.len() + 1);
    let length = below(rng, (bytes.len() - at).min(64) + 1);
    let part = at..at + length;
    match rng.next_u32() % 9 {
        0 if at < bytes.len() => bytes[at] ^= 1 << (rng.next_u32() % 8),
        1 if at < bytes.len() => bytes[at] = rng.next_u32() as u8,
        2 => drop(bytes.drain(part)),
        3 => bytes.truncate(at),
        4 => {
            let copied = bytes[part].to_vec();
            let to = below(rng, bytes.len() + 1);
            bytes.splice(to..to, copied);
        }
        5 => {
            let noise: Vec<u8> = (0..1 + below(rng, 16)).map(|_| rng.next_u32() as u8).collect();
            bytes.splice(at..at, noise);
        }
        // A token in place of what is there, or in front of it.
        6 | 7 => {
            let token = TOKENS[below(rng, TOKENS.len())];
            let replaced = at..at + below(rng, length + 1);
            bytes.splice(replaced, token.iter().copied());
        }
        _ => {
            let value = number(rng).to_le_bytes();
            let width = [1, 2, 4, 8][below(rng, 4)].min(bytes.len() - at);
            let mut value = value[..width].to_vec();
            if rng.next_u32().is_multiple_of(2) {
                value.reverse();
            }
            bytes[at..at + width].copy_from_slice(&value);
        }
    }
}
