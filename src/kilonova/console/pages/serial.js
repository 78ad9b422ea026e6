// A guest's serial line: xterm.js on a connection that `session.js` keeps.

import { Session, address, showStatus } from "./session.js";

const decoder = new TextDecoder();
const encoder = new TextEncoder();
let socket = null;
let session = null;

function start() {
  const url = address(location);
  if (url === null) {
    showStatus("refused", "This address names no console. Ask for one: openstack console url show --serial SERVER");
    return;
  }
  if (typeof window.Terminal === "undefined") {
    showStatus("refused", "xterm.js is not installed on the console proxy. On its host: scripts/setup.sh");
    return;
  }
  const terminal = new window.Terminal({ cols: 80, rows: 25, scrollback: 5000 });
  terminal.open(document.getElementById("terminal"));
  window.terminal = terminal;
  terminal.on("data", (typed) => {
    if (socket && socket.readyState === WebSocket.OPEN) {
      socket.send(encoder.encode(typed));
    }
  });
  session = new Session(url, {
    show: showStatus,
    open(opened) {
      socket = opened;
      opened.addEventListener("open", () => {
        session.working();
        terminal.focus();
      });
      opened.addEventListener("message", (event) => terminal.write(decoder.decode(event.data, { stream: true })));
    },
    closed() {
      socket = null;
    },
  });
  document.getElementById("reconnect").addEventListener("click", () => session.connect());
  session.connect();
}

start();
