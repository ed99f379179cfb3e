//! The `radiograd` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    quiet_mesa();
    radiograd::cli::main()
}

/// Without a desktop session, Mesa's Vulkan layer that picks a device by the display complains on stderr each time that
/// adapters are listed, and a command's error is to be one line. The layer does nothing for compute. It is switched off
/// by an environment variable that must be there before the process starts, so the program starts itself once more in
/// its own place.
#[cfg(target_os = "linux")]
fn quiet_mesa() {
    use std::os::unix::process::CommandExt as _;
    const SWITCH: &str = "NODEVICE_SELECT";
    let session = std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| std::path::Path::new(&dir).is_dir());
    if session || std::env::var_os(SWITCH).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let mut args = std::env::args_os();
        let mut command = std::process::Command::new(program);
        command.arg0(args.next().unwrap_or_else(|| "radiograd".into())).args(args).env(SWITCH, "1");
        // It returns only where it failed; then the noise stays.
        let _ = command.exec();
    }
}
