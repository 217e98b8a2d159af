//! `limbeck completions` and `limbeck man`, both made from the definition of the command line.

use clap::Command;
use clap_complete::Shell;
use limbeck::{Error, Result};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// A result that is plain text.
#[derive(Serialize)]
pub struct Text {
    pub text: String,
}

impl Text {
    pub fn new(bytes: &[u8]) -> Text {
        Text { text: String::from_utf8_lossy(bytes).into_owned() }
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The script of completions for a shell.
pub fn completions(mut program: Command, shell: Shell) -> Text {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut program, "limbeck", &mut script);
    Text::new(&script)
}

/// The manual: a page for the program, then one for each command.
///
/// # Errors
/// [`Error::Internal`] if a page cannot be made.
pub fn manual(mut program: Command) -> Result<Text> {
    let mut page = Vec::new();
    program.build();
    let mut commands = vec![program];
    while let Some(command) = commands.pop() {
        let subcommands = command.get_subcommands().filter(|c| c.get_name() != "help");
        commands.extend(subcommands.cloned().collect::<Vec<_>>().into_iter().rev());
        let rendered = clap_mangen::Man::new(command).render(&mut page);
        rendered.map_err(|e| Error::Internal(format!("manual page: {e}")))?;
    }
    Ok(Text::new(&page))
}
