//! AMX for a processor without it: what its tile instructions do, in a handler of the signal that
//! they raise there.
//!
//! Written from Intel's description of the instructions, and not from the kernels: it decodes what
//! the assembler made of theirs, addresses included, so that a wrong register, stride or shape gives
//! wrong numbers, and a stray address ends the process.

use std::cell::RefCell;
use std::ffi::c_int;
use std::sync::Once;
use std::{mem, ptr};

const ROWS: usize = 16;
const ROW_BYTES: usize = 64;
/// 16 rows of 16 f32, or of 16 pairs of bf16.
type Tile = [[u32; ROWS]; ROW_BYTES / 4];

/// A thread's tile registers; absent until they are configured.
struct Unit {
    tiles: Option<[Tile; 8]>,
}

thread_local! {
    static UNIT: RefCell<Unit> = const { RefCell::new(Unit { tiles: None }) };
}

/// Makes the handler this process's.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: a zeroed sigaction is valid, and the handler has the type that SA_SIGINFO asks for.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            assert_eq!(libc::sigaction(libc::SIGILL, &action, ptr::null_mut()), 0, "sigaction");
        }
    });
}

/// Does the instruction that raised the signal, and steps over it.
extern "C" fn handler(_: c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system passes the context of the thread that was interrupted, and its
    // instruction pointer is at an instruction, which is at most 15 bytes and readable.
    let (registers, code) = unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = registers[libc::REG_RIP as usize] as *const u8;
        (registers, std::slice::from_raw_parts(at, 10))
    };
    let mut instruction = Instruction::decode(code, registers);
    UNIT.with_borrow_mut(|unit| instruction.run(unit));
    registers[libc::REG_RIP as usize] += instruction.len as i64;
}

/// An instruction with a three-byte VEX prefix in the map 0F 38.
struct Instruction {
    /// The prefix that stands for none, 66, F3 or F2.
    pp: u8,
    opcode: u8,
    /// Registers: of the operand `reg`, of `rm` where that is no address, and of `vvvv`.
    reg: usize,
    rm: usize,
    vvvv: usize,
    /// Start and stride of the operand in memory.
    memory: Option<(usize, usize)>,
    len: usize,
}

impl Instruction {
    fn decode(code: &[u8], registers: &[libc::greg_t; 23]) -> Instruction {
        let [0xc4, first, second, opcode, modrm, ..] = *code else { unknown(code) };
        let number = |index: usize| {
            const NUMBERS: [c_int; 16] = [
                libc::REG_RAX,
                libc::REG_RCX,
                libc::REG_RDX,
                libc::REG_RBX,
                libc::REG_RSP,
                libc::REG_RBP,
                libc::REG_RSI,
                libc::REG_RDI,
                libc::REG_R8,
                libc::REG_R9,
                libc::REG_R10,
                libc::REG_R11,
                libc::REG_R12,
                libc::REG_R13,
                libc::REG_R14,
                libc::REG_R15,
            ];
            registers[NUMBERS[index] as usize] as usize
        };
        // The prefix holds the registers' upper bits inverted.
        let upper = |bit: u32| if first >> bit & 1 == 0 { 8 } else { 0 };
        let (w, l) = (second >> 7, second >> 2 & 1);
        if first & 0x1f != 2 || w != 0 || l != 0 {
            unknown(code);
        }
        let (mode, rm) = (modrm >> 6, usize::from(modrm & 7));
        let mut len = 5;
        let memory = (mode != 3).then(|| {
            let (mut base, mut stride) = (Some(rm + upper(5)), 0);
            if rm == 4 {
                let sib = code[len];
                len += 1;
                base = Some(usize::from(sib & 7) + upper(5));
                let index = usize::from(sib >> 3 & 7) + upper(6);
                if index != 4 {
                    stride = number(index) << (sib >> 6);
                }
            }
            let mut offset = 0;
            if mode == 0 && base.is_some_and(|base| base % 8 == 5) {
                base = None;
            }
            if mode == 1 {
                offset = isize::from(code[len] as i8);
                len += 1;
            } else if mode == 2 || base.is_none() {
                offset = i32::from_le_bytes(*code[len..].first_chunk().unwrap()) as isize;
                len += 4;
            }
            let base = match base {
                Some(base) => number(base),
                // Relative to the next instruction.
                None if rm == 5 => registers[libc::REG_RIP as usize] as usize + len,
                None => 0,
            };
            (base.wrapping_add_signed(offset), stride)
        });
        let reg = usize::from(modrm >> 3 & 7) + upper(7);
        let vvvv = usize::from(!(second >> 3) & 15);
        let rm = rm + if memory.is_none() { upper(5) } else { 0 };
        Instruction { pp: second & 3, opcode, reg, rm, vvvv, memory, len }
    }

    fn run(&mut self, unit: &mut Unit) {
        let Instruction { pp, opcode, reg, rm, vvvv, memory, .. } = *self;
        match (opcode, pp, memory) {
            // LDTILECFG
            (0x49, 0, Some((start, stride))) => {
                // SAFETY: the operand is 64 bytes.
                let shapes = unsafe { *(start.wrapping_add(stride) as *const [u8; 64]) };
                assert_eq!(shapes[..16], [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                // Of tiles that palette 1 has not: reserved.
                assert!(shapes[32..48].iter().chain(&shapes[56..]).all(|&byte| byte == 0));
                for tile in 0..8 {
                    let bytes = u16::from_le_bytes([shapes[16 + 2 * tile], shapes[17 + 2 * tile]]);
                    // Of others the kernels make no use.
                    assert_eq!((usize::from(bytes), shapes[48 + tile]), (ROW_BYTES, ROWS as u8));
                }
                unit.tiles = Some([[[0; ROWS]; ROW_BYTES / 4]; 8]);
            }
            // TILERELEASE
            (0x49, 0, None) if (reg, rm) == (0, 0) => unit.tiles = None,
            // TILEZERO
            (0x49, 3, None) if rm == 0 => unit.tile(reg).iter_mut().for_each(|row| row.fill(0)),
            // TILELOADD
            (0x4b, 3, Some((start, stride))) => {
                for (i, row) in unit.tile(reg).iter_mut().enumerate() {
                    let at = start.wrapping_add(i * stride) as *const [u32; ROWS];
                    // SAFETY: the instruction reads 64 bytes here.
                    *row = unsafe { at.read_unaligned() };
                }
            }
            // TILESTORED
            (0x4b, 2, Some((start, stride))) => {
                for (i, row) in unit.tile(reg).iter().enumerate() {
                    let at = start.wrapping_add(i * stride) as *mut [u32; ROWS];
                    // SAFETY: the instruction writes 64 bytes here.
                    unsafe { at.write_unaligned(*row) };
                }
            }
            // TDPBF16PS
            (0x5c, 2, None) => {
                let (a, b) = (*unit.tile(rm), *unit.tile(vvvv));
                assert!(reg != rm && reg != vvvv && rm != vvvv, "three tiles");
                for (row, a) in unit.tile(reg).iter_mut().zip(a) {
                    for (j, c) in row.iter_mut().enumerate() {
                        let mut sums = [0.0; 2];
                        for (a, b) in a.into_iter().zip(b) {
                            for (sum, (a, b)) in
                                sums.iter_mut().zip(pair(a).into_iter().zip(pair(b[j])))
                            {
                                *sum = flush(a.mul_add(b, *sum));
                            }
                        }
                        *c = flush(flush(f32::from_bits(*c)) + flush(sums[0] + sums[1])).to_bits();
                    }
                }
            }
            _ => unknown(&[0xc4, pp, opcode]),
        }
    }
}

impl Unit {
    fn tile(&mut self, number: usize) -> &mut Tile {
        &mut self.tiles.as_mut().expect("tiles that are configured")[number]
    }
}

/// The two bf16 of a word, the lower half first.
fn pair(word: u32) -> [f32; 2] {
    [word << 16, word & 0xffff_0000].map(|bits| flush(f32::from_bits(bits)))
}

/// The unit takes subnormal numbers for 0 and gives none.
fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(x) } else { x }
}

/// No way to go on: a panic cannot leave a signal's handler.
fn unknown(code: &[u8]) -> ! {
    eprintln!("an instruction that is not emulated: {code:02x?}");
    std::process::abort()
}
