//! The real files where there are any, and stand-ins for what can be wrong with them.

mod common;

use common::data_dir;
use limbeck_datasets::{Error, FileStatus, mnist};

#[test]
fn the_published_files() {
    let Some(dir) = data_dir(mnist::is_present) else { return };
    let data = mnist::load(&dir).unwrap();
    assert_eq!((data.name.as_str(), data.classes), ("mnist", 10));
    assert_eq!((data.train.len(), data.test.len()), (60_000, 10_000));
    assert_eq!((data.train.images().height, data.train.images().width), (28, 28));
    assert_eq!((data.test.images().height, data.test.images().width), (28, 28));
    assert_eq!(data.sha256.len(), 4);
    let mut counts = [0; 10];
    for &label in data.test.labels.as_ref().unwrap() {
        counts[usize::from(label)] += 1;
    }
    assert_eq!(counts, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
    let (fit, held) = data.train.holdout(10_000);
    assert_eq!((fit.len(), held.len()), (50_000, 10_000));
    assert_eq!(held.images().image(0), data.train.images().image(50_000));

    let status = mnist::verify(&dir);
    assert_eq!(status.len(), 4);
    assert!(status.iter().all(FileStatus::is_ok));
}

#[test]
fn a_well_formed_file_that_is_not_the_published_one() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("mnist");
    std::fs::create_dir(&folder).unwrap();
    let impostor = folder.join("train-images-idx3-ubyte");
    std::fs::write(&impostor, [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 9]).unwrap();
    assert!(!mnist::is_present(dir.path()));

    let error = mnist::load(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Hash { .. }) && !error.is_io());
    let message = error.to_string();
    for part in [
        impostor.to_str().unwrap(),
        "found SHA-256 56c304bf6b9e90aad3fee96309ea5fb37c5e2124a9d31f313ce980a58f6b7110",
        "expected ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ] {
        assert!(message.contains(part), "no '{part}' in: {message}");
    }

    let status = mnist::verify(dir.path());
    assert_eq!(status.len(), 4);
    assert!(status[0].found.is_ok() && !status[0].is_ok());
    for missing in &status[1..] {
        assert!(matches!(missing.found, Err(Error::NotFound { .. })));
    }
}

#[test]
fn missing_files_say_where_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let error = mnist::load(dir.path()).unwrap_err();
    assert!(error.is_io());
    let message = error.to_string();
    let looked = dir.path().join("mnist").join("train-images-idx3-ubyte");
    for part in [looked.to_str().unwrap(), "LIMBECK_DATA", "--data"] {
        assert!(message.contains(part), "no '{part}' in: {message}");
    }
}
