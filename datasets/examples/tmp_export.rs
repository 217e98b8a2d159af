use std::io::Write;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let seed: u64 = a[1].parse().unwrap();
    let t = std::time::Instant::now();
    let d = limbeck_datasets::glyphs::load(
        seed,
        limbeck_datasets::glyphs::DEFAULT_TRAIN,
        limbeck_datasets::glyphs::DEFAULT_TEST,
    );
    eprintln!("gen {:?}", t.elapsed());
    let mut f = std::fs::File::create(&a[2]).unwrap();
    f.write_all(&d.train.pixels).unwrap();
    f.write_all(&d.test.pixels).unwrap();
}
