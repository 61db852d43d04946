//! nginx with Lua: what nginx does, and before it one script in Redis for each request, over connections
//! that are kept. The script and the key are those of Sluice's sliding window, sent by their name.
//!
//! It does no more than that: no share of its own when Redis is gone, no fields that tell of the limit.

use std::path::{Path, PathBuf};

use super::{Stage, nginx};
use crate::child::Line;
use crate::failure::{Failure, Outcome};

pub(super) fn prepare(line: Line, stage: &Stage<'_>, program: &Path) -> Outcome<Line> {
    let packages = packages(program)?;
    let modules = packages.join("usr/lib/nginx/modules");
    let lua = packages.join("usr/share/lua/5.1");
    stage.write(
        "window.lua",
        include_str!("../../../gateway/sluice-proxy/src/lasting/redis/window.lua"),
    )?;
    let head = format!(
        "load_module {modules}/ndk_http_module.so;\nload_module {modules}/ngx_http_lua_module.so;\n",
        modules = modules.display()
    );
    let once = format!(
        "http {{\n  lua_package_path \"{lua}/?.lua;;\";\n  init_by_lua_block {{\n    \
         local file = assert(io.open(\"{folder}/window.lua\"))\n    WINDOW = file:read(\"*a\")\n    \
         file:close()\n    redis = require \"nginx.redis\"\n    state = {{}}\n  }}\n",
        lua = lua.display(),
        folder = stage.folder.display()
    );
    let each = format!("    access_by_lua_block {{\n{}    }}\n", script(stage.redis_port));
    let text = nginx::text(stage).replace("http {\n", &once);
    let text =
        text.replace(" reuseport backlog=4096;\n", &format!(" reuseport backlog=4096;\n{each}"));
    nginx::start(line, stage, &(head + &text))
}

/// Asks for a connection that is kept, runs the script by its name, and refuses what it refuses.
fn script(port: u16) -> String {
    format!(
        r#"      local client = redis:new()
      client:set_timeout(1000)
      local ok, err = client:connect("127.0.0.1", {port})
      if not ok then ngx.log(ngx.ERR, err) return ngx.exit(503) end
      if not state.sha then
        state.sha = assert(client:script("load", WINDOW))
      end
      local answer, err = client:evalsha(state.sha, 1, "lua:{{" .. ngx.var.binary_remote_addr .. "}}",
        1, 1000000000, 1000000, 0, 0, 2000)
      if not answer then ngx.log(ngx.ERR, err) return ngx.exit(503) end
      client:set_keepalive(60000, 256)
      if answer:find("^%z%z%z%z%z%z%z%z") then return ngx.exit(429) end
"#
    )
}

/// The folder in which the packages are unpacked, of which the program is one.
fn packages(program: &Path) -> Outcome<PathBuf> {
    let program = program.canonicalize().map_err(Failure::at(program))?;
    let folder = program.ancestors().nth(3).map(Path::to_owned);
    folder.ok_or_else(|| Failure::new("nginx with Lua is not where it was unpacked"))
}
