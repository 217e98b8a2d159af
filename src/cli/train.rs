//! `limbeck train`: the model of a configuration, on hard labels.

use crate::one_model::{ConfigArgs, ModelRun, Prepared};
use crate::session::Session;
use clap::Args;
use limbeck::Result;
use limbeck::engine::communicator::Communicator;
use limbeck::engine::data;
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
    let Prepared { mut config, parts, initial, resumed, .. } =
        args.config.prepare(session, "train")?;
    data::complete(&mut config, &parts.dataset, initial.as_ref())?;
    let model = ModelRun {
        command: "train",
        name: "model",
        config: &config,
        loss: LossSpec::HARD,
        teacher_logits: None,
        asked: &[],
        teacher_hashes: BTreeMap::new(),
        teachers: &[],
        initial: initial.as_ref(),
    };
    model.train(session, resumed, parts, communicator)
}
