//! A robot: eight processes of this program, which exchange frames, samples, commands and calls while they are killed at random. See
//! README.md beside it.

mod messages; //   what the processes tell each other
mod frame; //      a frame of the camera, and its checksum
mod process; //    the end, the time, and a beat
mod record; //     a role's file, which survives it
mod once; //       each order once, even if its sender or receiver is killed
mod camera; //     the roles
mod imu;
mod detector;
mod viewer;
mod planner;
mod commander;
mod logger;
mod results; //    what has come of it all
mod supervisor; // starts the roles, kills them, and counts

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// A robot of eight processes that are killed all the time. Exit code 1: a command or a sample was lost or doubled, or a frame was torn.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    supervisor: supervisor::Options,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The process of one role. The environment variable LIBRPC_DOMAIN names its domain.
#[derive(Subcommand)]
enum Role {
    Camera(Files),
    Imu(Files),
    Detector(Files),
    Viewer(Files),
    Planner(Files),
    Commander(Files),
    Logger(Files),
}

#[derive(Args)]
struct Files {
    /// The directory for what the role puts on record
    files: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let line = CommandLine::parse();
    let Some(role) = line.role else { return supervisor::run(&line.supervisor) };
    process::die_with_supervisor()?;
    match role {
        Role::Camera(Files { files }) => camera::run(&files),
        Role::Imu(Files { files }) => imu::run(&files),
        Role::Detector(Files { files }) => detector::run(&files),
        Role::Viewer(Files { files }) => viewer::run(&files),
        Role::Planner(Files { files }) => planner::run(&files),
        Role::Commander(Files { files }) => commander::run(&files),
        Role::Logger(Files { files }) => logger::run(&files),
    }?;
    Ok(ExitCode::SUCCESS)
}
