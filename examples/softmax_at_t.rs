//! What the temperature does to a soft prediction and to the gradient, with the kernels alone.
//!
//! `cargo run --release --example softmax_at_t`

use limbeck::kernels::softmax::{Distillation, Loss, softmax};
use limbeck::kernels::{Buffer, Context, Isa, Panels, PanelsMut, panel_len};

/// Student's and teacher's logits of one image: a 2 that looks a little like a 3 and a 7.
const STUDENT: [f32; 10] = [-4.0, -1.0, 6.0, 4.0, -6.0, -3.0, -5.0, 1.0, 0.0, -4.0];
const TEACHER: [f32; 10] = [-6.0, -3.0, 9.0, 4.0, -9.0, -5.0, -8.0, 2.0, -1.0, -7.0];
const CLASSES: usize = TEACHER.len();

/// Kernels take 16 examples side by side: one example is a panel with 15 unused lanes.
fn panel(values: &[f32]) -> Buffer {
    let mut panel = Buffer::zeroed(panel_len(CLASSES, 1));
    PanelsMut::new(&mut panel, CLASSES, 1).copy_from_lane_major(values);
    panel
}

fn values(panel: &Buffer) -> Vec<f64> {
    let panel = Panels::new(panel, CLASSES, 1);
    (0..CLASSES).map(|class| f64::from(panel.get(class, 0))).collect()
}

fn main() -> limbeck::Result<()> {
    let context = Context::new(Isa::best(), 1).map_err(limbeck::Error::Usage)?;
    let [student, teacher] = [STUDENT, TEACHER].map(|logits| panel(&logits));
    let [student, teacher] = [&student, &teacher].map(|logits| Panels::new(logits, CLASSES, 1));

    println!("     T  softmax(v/T) of 2, 3, 7      entropy  largest |gradient − its limit|");
    let (mut entropy_before, mut gap_before) = (0.0, f64::INFINITY);
    for temperature in [1.0, 2.0, 5.0, 20.0, 100.0] {
        let mut probs = panel(&[0.0; CLASSES]);
        softmax(&context, teacher, temperature, PanelsMut::new(&mut probs, CLASSES, 1));
        let probs = values(&probs);
        let entropy: f64 = probs.iter().map(|p| -p * p.ln()).sum();

        // T·(softmax(z/T) − softmax(v/T)) against (z − v, less its mean)/C, which it tends to.
        let gradient = |temperature: f32| {
            let mut d_logits = panel(&[0.0; CLASSES]);
            let task = Distillation {
                teacher: Some(teacher),
                labels: None,
                temperature,
                soft_weight: 1.0,
                hard_weight: 0.0,
            };
            let out = PanelsMut::new(&mut d_logits, CLASSES, 1);
            task.gradient(&context, student, &mut [Loss::default()], out);
            values(&d_logits)
        };
        let pairs = gradient(temperature).into_iter().zip(gradient(f32::INFINITY));
        let gap = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!(
            "{temperature:>6}  {:.5}  {:.5}  {:.5}  {entropy:>9.4}  {gap:>9.4}",
            probs[2], probs[3], probs[7]
        );

        assert!((probs.iter().sum::<f64>() - 1.0).abs() < 1e-6);
        assert!(entropy > entropy_before, "a higher temperature is softer");
        // The difference is of order 1/T once T is large beside the logits.
        assert!(temperature <= 5.0 || gap < gap_before, "and nearer to matching logits");
        (entropy_before, gap_before) = (entropy, gap);
    }
    assert!(entropy_before < (CLASSES as f64).ln(), "softer than uniform there is nothing");
    Ok(())
}
