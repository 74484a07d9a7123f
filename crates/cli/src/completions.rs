//! `librpc completions`, and `librpc names`, which the completions ask for what is there just now.
//!
//! The scripts are those of `clap_complete`, with arguments that name a node, topic or service completed by `librpc names`. (The dynamic
//! completion of `clap_complete` itself is not stable.) A name is a text of some other process, so no script evaluates it.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use clap::{Command, CommandFactory, ValueHint};
use clap_complete::Shell;
use librpc::Observer;

use crate::Cli;
use crate::domain::DomainArgs;
use crate::outcome::{CommandResult, Outcome};
use crate::snapshot::Snapshot;
use crate::{published, services};

/// Writes a completion script for a shell to stdout
///
/// With bash, zsh and fish, the names of nodes, topics and services are completed, too: those that are there just now.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc completions bash > ~/.local/share/bash-completion/completions/librpc
  librpc completions zsh > ~/.zfunc/_librpc")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Writes the names that are there, one a line
#[derive(clap::Args)]
pub(crate) struct NamesArgs {
    /// Of what
    #[arg(value_enum)]
    of: Of,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Nodes,
    Topics,
    Services,
    All,
}

/// Which arguments are such names: of these commands.
const NAMED: [(&[&str], &str, Of); 8] = [
    (&["send", "chat"], "node", Of::Nodes),
    (&["duplex"], "node", Of::Nodes),
    (&["duplex"], "peer", Of::Nodes),
    (&["check"], "node", Of::Nodes),
    (&["pub"], "topic", Of::Topics),
    (&["sub", "hz", "topics"], "pattern", Of::Topics),
    (&["stat", "top", "check"], "what", Of::All),
    (&["call", "serve"], "service", Of::Services),
];

/// How long a node may take to answer. Whoever has pressed a key waits for it.
const PATIENCE: Duration = Duration::from_millis(200);

impl Of {
    const ALL: [Self; 4] = [Self::Nodes, Self::Topics, Self::Services, Self::All];

    fn name(self) -> &'static str {
        match self {
            Self::Nodes => "nodes",
            Self::Topics => "topics",
            Self::Services => "services",
            Self::All => "all",
        }
    }

    /// A hint that no argument has, and what `clap_complete` makes of it for zsh.
    fn mark(self) -> (ValueHint, &'static str) {
        match self {
            Self::Nodes => (ValueHint::Hostname, ":_hosts'"),
            Self::Topics => (ValueHint::Url, ":_urls'"),
            Self::Services => (ValueHint::EmailAddress, ":_email_addresses'"),
            Self::All => (ValueHint::Username, ":_users'"),
        }
    }
}

/// The arguments that are names, command by command.
fn named() -> impl Iterator<Item = (&'static str, &'static str, Of)> {
    let all = NAMED.iter().flat_map(|(commands, argument, of)| commands.iter().map(|name| (*name, *argument, *of)));
    all.chain([("services", "pattern", Of::Services)])
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let mut cli = Cli::command();
    if args.shell == Shell::Zsh {
        for (command, argument, of) in named() {
            cli = cli.mut_subcommand(command, |command| {
                // `mut_arg` would change the order of the arguments.
                let mark = |arg: clap::Arg| if arg.get_id() == argument { arg.value_hint(of.mark().0) } else { arg };
                command.mut_args(mark)
            });
        }
    }
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "librpc", &mut script);
    let script = String::from_utf8(script)?;
    let script = match args.shell {
        Shell::Bash => bash(script, &cli),
        Shell::Zsh => zsh(script),
        Shell::Fish => fish(script, &cli),
        _ => script,
    };
    std::io::stdout().write_all(script.as_bytes())?;
    Ok(Outcome::Done)
}

/// The names of these options, as alternatives of a pattern.
fn options(cli: &Command, is_wanted: impl Fn(&clap::Arg) -> bool) -> String {
    let arguments = cli.get_arguments().chain(cli.get_subcommands().flat_map(Command::get_arguments));
    let wanted = arguments.filter(|arg| arg.get_action().takes_values() && is_wanted(arg));
    let names: BTreeSet<String> = wanted.filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    names.into_iter().collect::<Vec<_>>().join("|")
}

fn bash(script: String, cli: &Command) -> String {
    let mut kinds = String::new();
    for (command, argument, of) in named() {
        let is_option = cli.find_subcommand(command).is_some_and(|command| {
            command.get_arguments().any(|arg| arg.get_id() == argument && arg.get_long().is_some())
        });
        let after = if is_option { format!("--{argument}") } else { "argument".to_owned() };
        kinds += &format!("        {command},{after}) of={} ;;\n", of.name());
    }
    // Options that may do without a value are no reason to expect one.
    let with_value = options(cli, |arg| arg.get_num_args().is_none_or(|number| number.min_values() > 0));
    let global = options(cli, |arg| arg.is_global_set() && !arg.is_hide_set());
    script.replace("complete -F _librpc ", "complete -F _librpc_with_names ")
        + &format!(
            r#"
# What is there just now: nodes, topics, services.
_librpc_with_names() {{
    _librpc "$@"
    local cur="$2" after="argument" command="" of="" i name names=() passed=()
    [[ "$cur" == -* ]] && return
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "${{COMP_WORDS[i]}}" in
            {global})
                name="${{COMP_WORDS[i]}}"
                [[ "${{COMP_WORDS[i + 1]}}" == "=" ]] && ((i++))
                ((++i < COMP_CWORD)) && passed+=("$name" "${{COMP_WORDS[i]}}")
                ;;
            -*) ;;
            *) [[ -z "$command" ]] && command="${{COMP_WORDS[i]}}" ;;
        esac
    done
    case "$3" in
        {with_value}) after="$3" ;;
    esac
    case "$command,$after" in
{kinds}    esac
    [[ -z "$of" ]] && return
    while IFS= read -r name; do
        [[ "$name" == "$cur"* ]] && names+=("$(printf %q "$name")")
    done < <("$1" "${{passed[@]}}" names "$of" 2>/dev/null)
    ((${{#names[@]}} > 0)) && COMPREPLY=("${{names[@]}}")
}}
"#
        )
}

fn zsh(script: String) -> String {
    let mut functions = String::from("#compdef librpc\n\n# What is there just now: nodes, topics, services.\n");
    let mut script = script.replacen("#compdef librpc\n", "", 1);
    for of in Of::ALL {
        let name = of.name();
        script = script.replace(of.mark().1, &format!(":_librpc_{name}'"));
        functions += &format!(
            "_librpc_{name}() {{\n    local -a names\n    names=(${{(f)\"$(librpc names {name} 2>/dev/null)\"}})\n    \
             compadd \"$@\" -a names\n}}\n"
        );
    }
    functions + &script
}

fn fish(script: String, cli: &Command) -> String {
    let mut more = String::from("\n# What is there just now: nodes, topics, services.\n");
    for (command, argument, of) in named() {
        let found =
            cli.find_subcommand(command).and_then(|found| found.get_arguments().find(|a| a.get_id() == argument));
        let option = found.and_then(clap::Arg::get_long).map(|long| format!(" -l {long} -r")).unwrap_or_default();
        let name = of.name();
        more += &format!(
            "complete -c librpc -n \"__fish_librpc_using_subcommand {command}\"{option} -f -a \"(librpc names {name} 2>/dev/null)\"\n"
        );
    }
    script + &more
}

/// What a completion offers. Nothing is joined or created.
pub(crate) fn names(domain: &DomainArgs, args: &NamesArgs) -> CommandResult {
    let snapshot = Snapshot::of(Observer::new(domain.domain()?).look(PATIENCE)?);
    let is = |of: Of| args.of == of || args.of == Of::All;
    let mut names = BTreeSet::new();
    if is(Of::Nodes) {
        names.extend(snapshot.nodes.iter().map(|node| node.id.clone()));
    }
    if is(Of::Topics) {
        names.extend(published::find(&snapshot).into_iter().map(|row| row.name));
    }
    if is(Of::Services) {
        names.extend(services::listed(&snapshot));
    }
    let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
    std::io::stdout().write_all(lines.as_bytes())?;
    Ok(Outcome::Done)
}
