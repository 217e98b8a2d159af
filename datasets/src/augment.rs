//! Changes to an image that keep its label.

/// Translates an image: `dst[y][x] = src[y − dy][x − dx]`, zero where the source is outside.
///
/// Shapes: `src`, `dst` `[height·width]`, row-major. `dx` > 0 moves the ink right, `dy` > 0 down;
/// any amount is accepted, and a shift by the width or height or more leaves nothing.
/// Every pixel of `dst` is written. The paper's teacher sees ±2 pixels (section 3).
///
/// # Panics
/// If a slice is not height·width long.
pub fn shift_into(src: &[u8], height: usize, width: usize, dx: i32, dy: i32, dst: &mut [u8]) {
    assert_eq!(src.len(), height * width, "source is not height x width");
    assert_eq!(dst.len(), height * width, "destination is not height x width");
    dst.fill(0);
    let (away_x, away_y) = (dx.unsigned_abs() as usize, dy.unsigned_abs() as usize);
    if away_x >= width || away_y >= height {
        return;
    }
    let from = |shift: i32, away: usize| if shift < 0 { (away, 0) } else { (0, away) };
    let (src_x, dst_x) = from(dx, away_x);
    let (src_y, dst_y) = from(dy, away_y);
    for row in 0..height - away_y {
        let s = (src_y + row) * width + src_x;
        let d = (dst_y + row) * width + dst_x;
        dst[d..d + width - away_x].copy_from_slice(&src[s..s + width - away_x]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shift_matches_the_definition() {
        let (height, width) = (4_i32, 5_i32);
        let src: Vec<u8> = (1..=20).collect();
        for dy in -6..=6 {
            for dx in -6..=6 {
                let mut dst = vec![99; 20];
                shift_into(&src, 4, 5, dx, dy, &mut dst);
                for y in 0..height {
                    for x in 0..width {
                        let inside =
                            (0..height).contains(&(y - dy)) && (0..width).contains(&(x - dx));
                        let expected =
                            if inside { src[((y - dy) * width + x - dx) as usize] } else { 0 };
                        assert_eq!(dst[(y * width + x) as usize], expected, "{dx} {dy} at {x},{y}");
                    }
                }
            }
        }
    }

    #[test]
    fn extreme_shifts_leave_nothing() {
        let mut dst = [9; 4];
        shift_into(&[1, 2, 3, 4], 2, 2, i32::MIN, i32::MAX, &mut dst);
        assert_eq!(dst, [0; 4]);
    }
}
