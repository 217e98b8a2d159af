//! `limbeck check`: whether another implementation's loss and gradient are right.

use super::session::Session;
use clap::Args;
use limbeck::files::read::read_start;
use limbeck::tools::check::{self, CheckCase, List, MISTAKES, Verdict};
use limbeck::{Error, Result};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

#[derive(Args)]
pub struct CheckArgs {
    /// A safetensors file: student_logits, teacher_logits and d_logits [batch, classes] or
    /// [batch, length, classes], labels and mask [batch] or [batch, length], loss [1]; metadata
    /// temperature, soft_weight, hard_weight, reduction, divergence, beta, ignore_index, precision
    #[arg(value_name = "CASE", required_unless_present_any = ["list", "template"])]
    case: Option<PathBuf>,
    /// CASE is an archive of numpy.savez: the same arrays, and the metadata as arrays of one value.
    /// A name that ends in .npz says so too
    #[arg(long)]
    npz: bool,
    /// Prints the mistakes that are known, each with its formula and the corrected line
    #[arg(long, conflicts_with_all = ["case", "template"])]
    list: bool,
    /// Prints a Python script that writes a case from a loss in PyTorch
    #[arg(long, conflicts_with = "case")]
    template: bool,
}

/// Writes a case from somebody's loss.
const TEMPLATE: &str = "\
import torch
from safetensors.torch import save_file
from my_code import my_loss  # (student_logits, teacher_logits, labels) -> loss

torch.manual_seed(0)
z, v = (3 * torch.randn(2, 8, 10, dtype=torch.float64)).unbind()
z.requires_grad_()
y = torch.randint(10, (8,))
loss = my_loss(z, v, y)
loss.backward()
save_file({\"student_logits\": z.detach(), \"teacher_logits\": v.contiguous(), \"labels\": y,
           \"loss\": loss.detach().reshape(1), \"d_logits\": z.grad}, \"case.safetensors\",
          {\"temperature\": \"4\", \"soft_weight\": \"0.7\", \"hard_weight\": \"0.3\"})
";

#[derive(Serialize)]
struct Template {
    script: &'static str,
}

impl Display for Template {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.script)
    }
}

/// Whether a regular file that is not called an archive is one, as of numpy.savez, or an array of NumPy.
fn hides_numpy(path: &Path) -> Result<bool> {
    if !path.is_file() || path.extension().is_some_and(|extension| extension == "npz") {
        return Ok(false);
    }
    let start = read_start(path, 6)?;
    Ok(start.starts_with(b"PK\x03\x04") || start == b"\x93NUMPY")
}

pub fn run(session: &Session, args: &CheckArgs) -> Result<()> {
    let Some(path) = &args.case else {
        return match args.list {
            true => session.result(&List { mistakes: &MISTAKES }),
            false => session.result(&Template { script: TEMPLATE }),
        };
    };
    if !args.npz && hides_numpy(path)? {
        return Err(Error::Usage(format!(
            "{}: found arrays of NumPy, expected a case in safetensors: write its arrays with numpy.savez and \
             give the archive with --npz",
            path.display()
        )));
    }
    let case = if args.npz { CheckCase::load_npz(path)? } else { CheckCase::load(path)? };
    let report = check::check(&case)
        .map_err(|fault| Error::Internal(format!("a case that was validated: {fault}")))?;
    session.result(&report)?;
    match report.verdict {
        Verdict::Agrees => Ok(()),
        Verdict::CannotTell => {
            Err(Error::CannotTell(format!("{}: this case cannot tell", path.display())))
        }
        Verdict::Variant | Verdict::Unknown | Verdict::NotFinite => {
            Err(Error::Disagrees(format!("{} does not agree", path.display())))
        }
    }
}
