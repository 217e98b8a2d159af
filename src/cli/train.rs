//! `limbeck train`: the model of a configuration, on hard labels.

use crate::one_model::{ConfigArgs, ModelRun, Prepared};
use crate::session::Session;
use clap::Args;
use limbeck::Result;
use limbeck::engine::communicator::Communicator;
use limbeck::engine::loss::LossSpec;
use std::collections::BTreeMap;

#[derive(Args)]
pub struct TrainArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

pub fn run(
    session: &Session,
    args: &TrainArgs,
    communicator: Option<&mut Communicator>,
) -> Result<()> {
    let Prepared { config, parts, resumed, .. } = args.config.prepare(session, "train")?;
    let model = ModelRun {
        command: "train",
        name: "model",
        config: &config,
        loss: LossSpec::HARD,
        teacher_logits: None,
        asked: &[],
        teacher_hashes: BTreeMap::new(),
        teachers: &[],
    };
    model.train(session, resumed, &parts, communicator)
}
