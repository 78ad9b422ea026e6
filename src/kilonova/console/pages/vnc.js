// A guest's screen: noVNC's core on a connection that `session.js` keeps.

import { Session, address, showStatus } from "./session.js";

const byId = (id) => document.getElementById(id);
const options = { ...document.body.dataset };
const asked = new URLSearchParams(location.search);
let RFB = null;
let viewer = null;
let session = null;

function on(id, event, does) {
  const element = byId(id);
  if (element) {
    element.addEventListener(event, does);
  }
}

function visible(id, is) {
  const element = byId(id);
  if (element) {
    element.hidden = !is;
  }
}

function show(state, words) {
  showStatus(state, words);
  byId("ctrlaltdel").disabled = state !== "connected";
  visible("connect", state === "idle");
  visible("disconnect", state === "connected" || state === "connecting");
}

function open(socket) {
  viewer = new RFB(byId("screen"), socket);
  viewer.scaleViewport = byId("scale") ? byId("scale").checked : options.scale === "scale";
  viewer.viewOnly = byId("viewonly") ? byId("viewonly").checked : asked.get("view_only") === "true";
  viewer.focusOnClick = true;
  viewer.addEventListener("connect", () => {
    session.working();
    viewer.focus();
  });
  viewer.addEventListener("desktopname", (event) => {
    document.title = event.detail.name;
    if (byId("name")) {
      byId("name").textContent = event.detail.name;
    }
  });
  viewer.addEventListener("clipboard", (event) => {
    if (byId("text")) {
      byId("text").value = event.detail.text;
    }
  });
  // For whoever drives this page from outside: tests, extensions.
  window.viewer = viewer;
}

function closed() {
  if (viewer) {
    // noVNC takes its canvas away by itself once it has seen the end of the connection.
    viewer = null;
    window.viewer = null;
  }
}

async function start() {
  const url = address(location);
  if (url === null) {
    showStatus("refused", "This address names no console. Ask for one: openstack console url show SERVER");
    return;
  }
  try {
    ({ default: RFB } = await import("./novnc/core/rfb.js"));
  } catch {
    showStatus("refused", "noVNC is not installed on the console proxy. On its host: scripts/setup.sh, or apt-get install novnc");
    return;
  }
  session = new Session(url, { show, open, closed });
  on("ctrlaltdel", "click", () => {
    viewer.sendCtrlAltDel();
    viewer.focus();
  });
  on("reconnect", "click", () => session.connect());
  on("connect", "click", () => session.connect());
  on("disconnect", "click", () => session.disconnect());
  on("fullscreen", "click", () => (document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen()));
  on("scale", "change", (event) => viewer && (viewer.scaleViewport = event.target.checked));
  on("viewonly", "change", (event) => viewer && (viewer.viewOnly = event.target.checked));
  on("paste", "click", () => viewer && viewer.clipboardPasteFrom(byId("text").value));
  if (options.connect === "auto" || asked.get("autoconnect") === "true") {
    session.connect();
  } else {
    show("idle", "Ready to connect");
  }
}

start();
