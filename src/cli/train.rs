//! `limbeck train`: the model of a configuration, on hard labels.

use crate::one_model::{self, ConfigArgs, ModelRun};
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
    let (mut config, resumed) = args.config.open(session, "train")?;
    let located = args.config.located(session, &config)?;
    let (dataset, _) = args.config.load_data(session, &located)?;
    let initial = one_model::initial(session, &located)?;
    data::complete(&mut config, &dataset, initial.as_ref())?;
    let model = ModelRun {
        command: "train",
        name: "model",
        config: &config,
        loss: LossSpec::HARD,
        teacher_logits: None,
        teacher_hashes: BTreeMap::new(),
        teachers: &[],
        initial: initial.as_ref(),
    };
    model.train(session, resumed, &dataset, communicator)
}
