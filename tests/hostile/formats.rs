//! Every format that is read from outside: a small valid file of it, and its reader.
//!
//! Shared with fuzz/.

use limbeck::engine::config::Config;
use limbeck::files::about::About;
use limbeck::files::checkpoint::TrainingState;
use limbeck::files::model::{Layer, ModelFile};
use limbeck::files::read::read_json;
use limbeck::pages::{contents, report as page};
use limbeck::run::folder::RunFolder;
use limbeck::run::summary::Summary;
use limbeck::speech::corpus::{Alignments, SpeechCorpus, UtteranceSet};
use limbeck::speech::features::FeatureMatrix;
use limbeck::speech::hmm::Lexicon;
use limbeck::speech::lm::LanguageModel;
use limbeck::tools::check::CheckCase;
use limbeck::{Error, Result};
use limbeck_datasets::{Features, an4, idx, npy, table};
use limbeck_kernels::{Context, Isa};
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;

/// What a reader made of a file.
pub struct Loaded {
    values: Box<dyn Debug>,
    /// The digest that the reader gives back, which its callers compare with a known one.
    pub digest: Option<String>,
}

impl Loaded {
    fn of(values: impl Debug + 'static) -> Loaded {
        Loaded { values: Box::new(values), digest: None }
    }

    /// All values, as text.
    pub fn text(&self) -> String {
        format!("{:?}", self.values)
    }
}

/// A format and its reader.
pub struct Format {
    /// In one word.
    pub name: &'static str,
    /// The path of its file below the folder.
    pub file: &'static str,
    /// Reads the file in the folder.
    read: fn(&Path) -> Result<Loaded>,
}

const MODEL: &str = "model.safetensors";
const CHECKPOINT: &str = "checkpoint.safetensors";
const ALIGNMENT: &str = "alignment.safetensors";
const CASE: &str = "case.safetensors";
const IDX: &str = "images.idx";
const IDX_LABELS: &str = "labels.idx";
const GZIP: &str = "images.gz";
const NPY: &str = "logits.npy";
const NPZ: &str = "arrays.npz";
const TABLE: &str = "table.csv";
const CONFIG: &str = "config.toml";
const WAV: &str = "an4/wav/te/cid/c1.wav";
const RUN: &str = "run";

pub const FORMATS: [Format; 21] = [
    Format {
        name: "safetensors_model",
        file: MODEL,
        read: |dir| {
            let (model, digest) = ModelFile::load(&dir.join(MODEL))?;
            Ok(Loaded { digest: Some(digest), ..Loaded::of(model) })
        },
    },
    Format {
        name: "checkpoint",
        file: CHECKPOINT,
        read: |dir| TrainingState::load(&dir.join(CHECKPOINT)).map(Loaded::of),
    },
    Format {
        name: "alignment",
        file: ALIGNMENT,
        read: |dir| Alignments::load(&dir.join(ALIGNMENT), &speech_corpus()).map(Loaded::of),
    },
    Format {
        name: "check_case",
        file: CASE,
        read: |dir| CheckCase::load(&dir.join(CASE)).map(Loaded::of),
    },
    Format {
        name: "idx",
        file: IDX,
        read: |dir| {
            let images = idx::read_images(&dir.join(IDX))?;
            Ok(Loaded { digest: Some(images.sha256.clone()), ..Loaded::of(images) })
        },
    },
    Format {
        name: "idx_labels",
        file: IDX_LABELS,
        read: |dir| {
            let labels = idx::read_labels(&dir.join(IDX_LABELS), 10)?;
            Ok(Loaded { digest: Some(labels.sha256.clone()), ..Loaded::of(labels) })
        },
    },
    Format {
        name: "gzip",
        file: GZIP,
        read: |dir| {
            let images = idx::read_images(&dir.join(GZIP))?;
            Ok(Loaded { digest: Some(images.sha256.clone()), ..Loaded::of(images) })
        },
    },
    Format {
        name: "npy",
        file: NPY,
        read: |dir| Ok(Loaded::of(npy::read_logits(&dir.join(NPY), 3, 2)?)),
    },
    Format {
        name: "npz",
        file: NPZ,
        read: |dir| {
            let mut dataset = npy::load_dataset(&dir.join(NPZ), Some(3), true)?;
            let digest = dataset.sha256.pop_first().map(|(_, digest)| digest);
            Ok(Loaded { digest, ..Loaded::of(dataset) })
        },
    },
    Format {
        name: "table",
        file: TABLE,
        read: |dir| {
            let columns = table::Columns::default();
            Ok(Loaded::of(table::load_dataset(&dir.join(TABLE), None, &columns, Some(3))?))
        },
    },
    Format {
        name: "config",
        file: CONFIG,
        read: |dir| Config::load(&dir.join(CONFIG)).map(Loaded::of),
    },
    Format {
        name: "wav",
        file: WAV,
        read: |dir| {
            let utterance = an4::Utterance {
                id: "c1".into(),
                speaker: "cid".into(),
                words: vec!["GO".into()],
                path: dir.join(WAV),
            };
            Ok(Loaded::of(utterance.samples()?))
        },
    },
    Format { name: "phones", file: "an4/etc/an4.phone", read: corpus },
    Format { name: "dictionary", file: "an4/etc/an4.dic", read: corpus },
    Format { name: "arpa", file: "an4/etc/an4.lm", read: corpus },
    Format { name: "transcripts", file: "an4/etc/an4_train.transcription", read: corpus },
    Format { name: "fileids", file: "an4/etc/an4_train.fileids", read: corpus },
    Format {
        name: "summary",
        file: "run/summary.json",
        read: |dir| Ok(Loaded::of(read_json::<Summary>(&dir.join("run/summary.json"), "summary")?)),
    },
    Format { name: "summary_of_run", file: "run/summary.json", read: report },
    Format { name: "metrics", file: "run/metrics.jsonl", read: report },
    Format {
        name: "manifest",
        file: "run/manifest.json",
        read: |dir| {
            let data = BTreeMap::from([("images".into(), "ab".into())]);
            RunFolder::open(&dir.join(RUN))?.expect_data(&data)?;
            report(dir)
        },
    },
];

/// The page of a run.
fn report(dir: &Path) -> Result<Loaded> {
    static CONTEXT: LazyLock<Context> =
        LazyLock::new(|| Context::new(Isa::Portable, 1).expect("a context"));
    let run = contents::RunContents::read(&CONTEXT, &dir.join(RUN), None, None, &[])?;
    page::page(&run).map(Loaded::of)
}

fn corpus(dir: &Path) -> Result<Loaded> {
    Ok(Loaded::of(an4::read(&dir.join("an4"))?))
}

/// A folder with a valid file of each format: in `TMPDIR`, or in memory where the system has such.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Folder {
        let memory = Path::new("/dev/shm");
        let dir = if std::env::var_os("TMPDIR").is_none() && memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let folder = Folder(dir.unwrap());
        folder.fill();
        folder
    }

    pub fn path(&self, format: &Format) -> PathBuf {
        self.0.path().join(format.file)
    }

    /// The valid file.
    pub fn valid(&self, format: &Format) -> Vec<u8> {
        fs::read(self.path(format)).unwrap()
    }

    /// What becomes of `bytes` as a file of the format.
    pub fn read(&self, format: &Format, bytes: &[u8]) -> Result<Loaded> {
        fs::write(self.path(format), bytes).unwrap();
        (format.read)(self.0.path())
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn fill(&self) {
        let layer = |inputs: usize, outputs: usize| Layer {
            inputs,
            outputs,
            weight: (0..inputs * outputs).map(|i| 0.75 * i as f32 - 1.3).collect(),
            bias: (0..outputs).map(|i| 0.1 - i as f32).collect(),
        };
        let model = ModelFile {
            activation: limbeck_kernels::Activation::Relu,
            layers: vec![layer(3, 2), layer(2, 3)],
            input_scale: 1.0 / 127.5,
            input_shift: -1.0,
            standardizer: None,
            about: About::default(),
        };
        model.save(&self.0.path().join(MODEL)).unwrap();

        let state = TrainingState {
            epoch: 12,
            step: 345,
            tensors: vec![
                ("params".into(), vec![1.5, -0.25, 1e-40].into()),
                ("velocity".into(), vec![0.0, -0.0, f32::INFINITY].into()),
            ],
            counters: BTreeMap::from([("adam_steps".into(), 77)]),
            scalars: BTreeMap::from([("loss".into(), 0.1 + 0.2)]),
            config_sha256: "ab".into(),
        };
        state.save(&self.0.path().join(CHECKPOINT)).unwrap();

        let parts = [vec![vec![0, 1, 2], vec![3, 5]], vec![vec![4]], vec![vec![2, 3]]];
        Alignments { parts }.save(&self.0.path().join(ALIGNMENT)).unwrap();

        let floats = [0.5f32, -1.0, 2.0, 0.25, 3.0, -4.0].map(f32::to_le_bytes).concat();
        let labels = [1i64, 0].map(i64::to_le_bytes).concat();
        let loss = 1.25f64.to_le_bytes();
        let matrix = || TensorView::new(Dtype::F32, vec![2, 3], &floats).unwrap();
        let tensors = [
            ("student_logits", matrix()),
            ("teacher_logits", matrix()),
            ("d_logits", matrix()),
            ("labels", TensorView::new(Dtype::I64, vec![2], &labels).unwrap()),
            ("loss", TensorView::new(Dtype::F64, vec![1], &loss).unwrap()),
        ];
        let metadata = HashMap::from([("temperature".to_string(), "4".to_string())]);
        self.write(CASE, safetensors::serialize(tensors, Some(metadata)).unwrap());

        let images: Vec<u8> =
            [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3].into_iter().chain(1..=12).collect();
        self.write(IDX, &images);
        self.write(IDX_LABELS, [0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 9]);
        // Two members, as concatenated files are.
        let (start, rest) = images.split_at(20);
        let members = [start, rest].map(|part| {
            let mut encoder = flate2::GzBuilder::new()
                .filename("images")
                .write(Vec::new(), flate2::Compression::best());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap()
        });
        self.write(GZIP, members.concat());

        let array = |descr: &str, shape: &str, values: &[u8]| {
            let fields = format!("'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, ");
            let start = format!("\x01\0\x76\0{:<117}\n", format!("{{{fields}}}"));
            [b"\x93NUMPY", start.as_bytes(), values].concat()
        };
        let (logits, labels) = (array("<f4", "(3, 2)", &floats), array("|u1", "(3,)", &[2, 0, 1]));
        self.write(NPY, &logits);
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in [("x_train.npy", logits), ("y_train.npy", labels)] {
            let options = SimpleFileOptions::default();
            let stored = options.compression_method(zip::CompressionMethod::Stored);
            archive.start_file(name, stored).unwrap();
            archive.write_all(&bytes).unwrap();
        }
        self.write(NPZ, archive.finish().unwrap().into_inner());
        self.write(TABLE, "height,label,\"width, mm\"\n1.5,2,-3e2\n\n0,0,.25\n\"7\",1,1e-40\n");

        self.write(
            CONFIG,
            "seed = 3\n[data]\ndataset = \"idx\"\ntrain_images = \"x\"\ntrain_labels = 'y'\n\
             holdout = 50\nclasses = 10\n[model]\nlayers = [16, 8, 10]\ndropout = [0.2, 0.5]\n\
             [training]\nepochs = 2 # two\nlearning_rate = 5e-2\nschedule = \"hinton2012\"\n\
             max_norm = 3.5\n[distillation]\ntemperature = inf\nhard_weight = 0.05\n",
        );

        let samples: Vec<u8> = (0..401i16).flat_map(|i| (i * 71).to_le_bytes()).collect();
        let wav = [
            &b"RIFF"[..],
            &(36 + samples.len() as u32).to_le_bytes(),
            b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data",
            &(samples.len() as u32).to_le_bytes(),
            &samples,
        ];
        self.write(WAV, wav.concat());
        self.write("an4/etc/an4.phone", "AH\nG\nN\nOW\nSIL\n");
        self.write("an4/etc/an4.dic", "GO      G OW\nGO(2)   G AH\nNO      N OW\n");
        self.write(
            "an4/etc/an4.lm",
            "words\n\\data\\\nngram 1=4\n\n\\1-grams:\n-0.5 <UNK> 0\n-0.6 </s>\n-99 <s> 0\n\
             -0.7 GO 0.0\n\n\\end\\\n",
        );
        self.write("an4/etc/an4_train.fileids", "tr/ann/a1\ntr/bob/b1\n");
        self.write("an4/etc/an4_train.transcription", "<s> GO NO </s> (b1)\nNO (a1)\n");
        self.write("an4/etc/an4_test.fileids", "te/cid/c1\n");
        self.write("an4/etc/an4_test.transcription", "GO (c1)\n");

        let summary = r#"{"experiment":"mnist","dataset":"glyphs","preset":"quick","rows":[{"system":"student",
            "seed":0,"test_errors":3,"train_errors":3,"seconds":1.5,"model":"student-0",
            "sha256":"ab","test_nll":0.25,"misclassified":[1,2,3],"agreement":1e-3}],
            "aggregate":{"student":{"n":1,"mean":3.0,"sd":null}},"paper":{"student":74},
            "tables":[{"title":"t","columns":["a","b"],"rows":[["1","2"]],"notes":["n"]}],
            "claims":[{"paper":"146 errors","ours":"150","verdict":"reproduced"}]}"#;
        self.write("run/summary.json", summary);
        self.write(
            "run/metrics.jsonl",
            r#"{"seed":0,"model":"student","epoch":1,"loss":2.5,"reducible_loss":0.5,"train_errors":9,
"examples":50,"learning_rate":1e-3,"seconds":0.5,"samples_per_second":100.0,"gflops":1.5}
{"seed":0,"model":"student","epoch":2,"loss":2.1,"reducible_loss":0.1,"train_errors":null,
"examples":50,"learning_rate":5e-4,"seconds":1.0,"samples_per_second":100.0,"gflops":1.5}
"#
            .replace(",\n", ","),
        );
        let manifest = r#"{"program":"limbeck","version":"0.1.0","git_commit":null,"started":"2026-11-24T01:14:24Z",
            "cpu":"c","cores":2,"isa":"avx2","threads":2,"peak_gflops":200.0,"seeds":[0],
            "data":{"images":"ab"},"loss_contract":{"temperature":20.0,"t_squared":true,
            "soft_weight":1.0,"hard_weight":0.0},"command":["limbeck","reproduce"],
            "continued":[{"started":"2026-11-24T02:14:24Z","command":["limbeck"]}]}"#;
        self.write("run/manifest.json", manifest);
    }
}

/// What the alignment belongs to: one word of one phone beside silence, in five frames, one and two.
fn speech_corpus() -> SpeechCorpus {
    let part = |lengths: &[usize]| {
        let frames: usize = lengths.iter().sum();
        UtteranceSet {
            speakers: vec!["ann".into(); lengths.len()],
            words: vec![vec![0]; lengths.len()],
            lengths: lengths.to_vec(),
            mfcc: lengths.iter().map(|&n| FeatureMatrix { dim: 1, values: vec![0.0; n] }).collect(),
            frames: Features::new(vec![0.0; frames], 1, lengths, (0, 0)),
        }
    };
    let words: [&[Vec<usize>]; 1] = [&[vec![1]]];
    SpeechCorpus {
        phones: Lexicon::new(2, 0, words),
        lexicon: Lexicon::new(2, 0, words),
        phone_states: (0..6).collect(),
        train: part(&[3, 2]),
        holdout: part(&[1]),
        test: part(&[2]),
        perturbed: part(&[3, 2]).frames,
        unigram: LanguageModel::witten_bell(1, &[]),
        bigram: LanguageModel::witten_bell(1, &[]),
        sha256: BTreeMap::new(),
    }
}

/// Checks what holds of any refusal: bad data, by exit code, in a message that names the file, is
/// short, and has no character that would move a terminal's cursor.
pub fn check_refusal(format: &Format, error: &Error) {
    let message = error.to_string();
    assert_eq!(error.exit_code(), 65, "{}: {message}", format.name);
    let name = Path::new(format.file).file_name().unwrap().to_str().unwrap();
    assert!(message.contains(name), "{}: {message}", format.name);
    assert!(message.len() < 4000, "{}: a message of {} bytes", format.name, message.len());
    assert!(!message.contains(char::is_control), "{}: {message:?}", format.name);
}
