//! Runs a test in a process of its own: for tests that choose a driver or limit memory, which a process does once.
//!
//! Such a test is ignored otherwise, and another test calls [`run`] with its path.

/// Runs an ignored test of this binary in a process of its own, started by a shell that first does `setup`.
///
/// Prints what the test prints where it skips.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn run(test: &str, setup: &str) {
    let program = std::env::current_exe().expect("this program");
    let command = format!("{setup}; exec \"$0\" --exact {test} --ignored --nocapture");
    let output =
        std::process::Command::new("sh").arg("-c").arg(command).arg(program).output().expect("a shell");
    let printed =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    for line in printed.lines().filter(|line| line.contains("skipped: ")) {
        eprintln!("{line}");
    }
}
