// Shows the picture and the lines as they come. Every text becomes text and nothing else: there is no markup in it.
"use strict";

(() => {
  const MOST_LINES = 1000;
  // The picture comes every two seconds and more.
  const SILENT_MS = 10000;
  const RETRY_MS = 3000;
  const MARKS = { good: "✓", warn: "!", bad: "✗", plain: "" };
  const SIGNS = { good: " ✓", warn: " …", bad: " ✗", plain: " ·" };
  const byId = (id) => document.getElementById(id);
  // Places of the nodes, for their colours.
  let places = new Map();
  let heard = Date.now();
  let picture = null;

  const element = (tag, text, kind) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const said = (tag, it) => element(tag, it.text, it.tone);
  const hue = (node) => "n" + ((places.get(node) || 0) % 6);
  const row = (...cells) => {
    const made = document.createElement("tr");
    made.append(...cells.map((cell) => (typeof cell === "string" ? element("td", cell) : cell)));
    return made;
  };
  // What each row says. Rows that say the same stay: of a thousand nodes few change at a time, and what somebody marks in
  // one of them stays marked.
  const told = new WeakMap();
  const fill = (id, all, make) => {
    const body = byId(id);
    const rows = Array.from(body.children);
    all.forEach((one, place) => {
      const text = JSON.stringify([one, one.node && hue(one.node)]);
      if (place < rows.length && told.get(rows[place]) === text) return;
      const made = make(one);
      told.set(made, text);
      if (place < rows.length) rows[place].replaceWith(made);
      else body.append(made);
    });
    rows.slice(all.length).forEach((left) => left.remove());
  };

  const steps = (all) => {
    const cell = document.createElement("td");
    for (const step of all) cell.append(element("span", step.text + SIGNS[step.tone], step.tone), "  ");
    return cell;
  };

  const showOld = () => {
    const silent = Math.round((Date.now() - heard) / 1000);
    const alone = silent * 1000 >= SILENT_MS;
    const why = alone
      ? `k8sctl dashboard has ended, refuses this page, or cannot be reached: this is how it was ${silent} s ago`
      : picture && picture.old;
    byId("old").hidden = !why;
    byId("old").textContent = why ? `OLD: ${why}` : "";
    document.body.classList.toggle("old", Boolean(why));
  };

  const show = (it) => {
    picture = it;
    places = new Map(it.nodes.map((node, place) => [node.name, place]));
    document.title = `${MARKS[it.verdict.tone]} ${it.cluster}`;
    byId("cluster").textContent = it.cluster;
    byId("kubernetes").textContent = it.kubernetes && `Kubernetes ${it.kubernetes}`;
    byId("verdict").textContent = `${MARKS[it.verdict.tone]} ${it.verdict.text}`;
    byId("verdict").className = it.verdict.tone;
    fill("nodes", it.nodes, (node) => {
      const made = row(
        element("td", MARKS[node.tone], node.tone), element("td", node.name, hue(node.name)), node.role, node.ip,
        said("td", node.vm), said("td", node.phase), said("td", node.agent), node.age,
        element("td", node.untrue.join(", "), "warn"));
      made.title = node.message;
      return made;
    });
    byId("conditions-section").hidden = it.conditions.length === 0;
    fill("conditions", it.conditions, (one) => row(
      element("td", MARKS[one.tone], one.tone), element("td", one.node, one.node && hue(one.node)), one.condition,
      element("td", one.status, one.tone), one.reason, one.since, one.message));
    byId("operation-section").hidden = !it.operation;
    if (it.operation) {
      byId("operation-title").textContent = it.operation.title.text;
      byId("operation-title").className = it.operation.title.tone;
      fill("objects", it.operation.objects, (one) => row(
        element("td", MARKS[one.tone], one.tone), one.object, one.phase, one.age, steps(one.steps), one.message));
    }
    byId("failure-section").hidden = !it.failure;
    if (it.failure) {
      byId("failure").textContent = it.failure.what;
      byId("evidence").textContent = it.failure.evidence.join("\n");
      byId("next").textContent = it.failure.next;
    }
    byId("plugins-section").hidden = it.plugins.length === 0;
    fill("plugins", it.plugins, (one) => row(
      element("td", MARKS[one.state.tone], one.state.tone), one.name, one.version, said("td", one.state), one.message));
    byId("logs-lost").textContent = it.logs_lost || "";
    showOld();
  };

  const line = (it) => {
    const made = document.createElement("div");
    if (it.time) made.append(element("span", it.time + " ", "dim"));
    made.append(element("span", it.notice ? `${it.node} ` : `${it.node} ${it.source} `, hue(it.node)));
    if (it.late) made.append(element("span", "(late) ", "warn"));
    made.append(element("span", it.text, it.notice ? "warn" : ""));
    return made;
  };

  const addLines = (it) => {
    const logs = byId("logs");
    // Who has scrolled up is reading.
    const follows = logs.scrollTop + logs.clientHeight >= logs.scrollHeight - 8;
    if (it.left_out > 0) logs.append(element("div", `${it.left_out} lines are left out`, "warn"));
    logs.append(...it.lines.map(line));
    while (logs.childElementCount > MOST_LINES) logs.firstElementChild.remove();
    if (follows) logs.scrollTop = logs.scrollHeight;
  };

  let last = "";
  const listen = (anew) => {
    const live = new EventSource("live");
    const hear = (use) => (event) => {
      heard = Date.now();
      use(JSON.parse(event.data));
    };
    live.addEventListener("picture", hear(show));
    live.addEventListener("lines", (event) => {
      // What was seen before an interruption is not shown twice.
      if (event.lastEventId === last) return;
      last = event.lastEventId;
      hear(addLines)(event);
    });
    live.addEventListener("error", () => {
      // The browser tries again by itself, unless it was refused.
      if (live.readyState !== EventSource.CLOSED) return;
      setTimeout(() => listen(true), RETRY_MS);
    });
    live.addEventListener("open", () => {
      if (!anew) return;
      // The server sends all that it keeps. Until then what was seen last stays.
      byId("logs").replaceChildren();
      last = "";
    }, { once: true });
  };

  setInterval(showOld, 1000);
  listen(false);
})();
