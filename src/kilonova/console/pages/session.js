// A console's connection: the token from the page's address, a session of this tab, and words for how it ends.

export const RETRY_FOR = 60000;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 5000;

const REFUSED = {
  unknown: "This console address is not valid. Ask for a new one.",
  expired: "This console address has expired. Ask for a new one.",
  used: "This console address has been used already: each opens one session. Ask for a new one.",
  revoked: "The server was stopped, rebuilt, moved or deleted. When it runs again, ask for a new console address.",
};
const ENDED = {
  4408: "The time of this session is over. Ask for a new console address.",
  4409: "The console was opened again with this session, in another window.",
  4410: REFUSED.revoked,
};
export const TOKEN_REFUSED = 4401;
export const UNAVAILABLE = 4404;
export const HOST_CLOSED = 4502;

/** Words for the end of a connection that is final; null when it is worth trying again. */
export function wordsFor(code, reason) {
  if (code === TOKEN_REFUSED) {
    return REFUSED[reason] || REFUSED.unknown;
  }
  if (code === UNAVAILABLE) {
    return reason || "The server has no console now.";
  }
  return ENDED[code] || null;
}

/** The WebSocket's address: `path` of the page's own address, as noVNC's pages take it, or its `token`. */
export function address(location) {
  const asked = new URLSearchParams(location.search);
  const path = asked.get("path") || (asked.get("token") ? "?" + new URLSearchParams({ token: asked.get("token") }) : "");
  const url = new URL("/" + path.replace(/^\/+/, ""), location.href);
  const token = url.searchParams.get("token");
  if (!token) {
    return null;
  }
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  // Always our own server, whatever `path` says.
  url.host = location.host;
  url.searchParams.set("session", sessionOf(token));
  return url.href;
}

/** A secret that this tab made up for the token: with it the tab may come back after a break or a reload. */
function sessionOf(token) {
  const key = "console-" + token;
  let found = null;
  try {
    found = sessionStorage.getItem(key);
  } catch {
    // Storage may be forbidden; then only this page itself can come back.
  }
  if (!found) {
    found = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    try {
      sessionStorage.setItem(key, found);
    } catch {
      // As above.
    }
  }
  return found;
}

/** Keeps one connection going: `open(socket)` starts a viewer on it, `closed()` ends the viewer. */
export class Session {
  constructor(url, { show, open, closed }) {
    this.url = url;
    this.show = show;
    this.open = open;
    this.closed = closed;
    this.wanted = false;
  }

  connect() {
    this.wanted = true;
    this.brokenSince = null;
    this.pause = FIRST_PAUSE;
    this.show("connecting", "Connecting");
    this._try();
  }

  disconnect() {
    this.wanted = false;
    clearTimeout(this.timer);
    if (this.socket) {
      this.socket.close();
    }
    this.show("idle", "Disconnected");
  }

  /** The viewer has a picture, or a line: from here on a break is worth a new connection. */
  working() {
    this.brokenSince = null;
    this.pause = FIRST_PAUSE;
    this.show("connected", "Connected");
  }

  _try() {
    const socket = new WebSocket(this.url, ["binary"]);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.addEventListener("close", (event) => {
      if (socket === this.socket) {
        this.socket = null;
        this._ended(event.code, event.reason);
      }
    });
    this.open(socket);
  }

  _ended(code, reason) {
    this.closed();
    if (!this.wanted) {
      return;
    }
    const words = wordsFor(code, reason);
    if (words) {
      this.wanted = false;
      this.show(code === TOKEN_REFUSED || code === UNAVAILABLE ? "refused" : "ended", words);
      return;
    }
    this.brokenSince = this.brokenSince || Date.now();
    if (Date.now() - this.brokenSince > RETRY_FOR) {
      this.wanted = false;
      this.show("ended", "The connection is lost. Ask for a new console address.");
      return;
    }
    this.show("connecting", code === HOST_CLOSED ? "The server closed its console; trying again" : "Connection lost; trying again");
    this.timer = setTimeout(() => this._try(), this.pause);
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
  }
}

/** Shows words in the page's status line. */
export function showStatus(state, words) {
  const status = document.getElementById("status");
  status.dataset.state = state;
  status.textContent = words;
  const reconnect = document.getElementById("reconnect");
  if (reconnect) {
    reconnect.hidden = state !== "ended";
  }
}
