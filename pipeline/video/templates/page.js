"use strict";

const PERIOD = 500; // milliseconds between two looks at the figures
// Browsers open six connections to a host, and a running picture keeps one. With more streams than
// these the figures would never arrive, so pictures are then asked for one by one, in turn.
const RUNNING = 4;
const ASKING = 3; // pictures asked for at the same time
const streams = document.getElementById("streams");
const link = document.getElementById("link");
const cards = [];
let inTurn = false;
let turn = 0;

function addCard(number) {
  const card = document.getElementById("stream").content.cloneNode(true).firstElementChild;
  const picture = card.querySelector("img");
  picture.addEventListener("load", () => picture.parentElement.classList.add("sized"));
  picture.addEventListener("error", () => setTimeout(() => show(card, number), 2000));
  streams.append(card);
  cards.push(card);
  show(card, number);
}

function show(card, number) {
  if (inTurn) return;
  // The query makes it a new request where the last one broke off.
  card.querySelector("img").src = `streams/${number}.mjpg?${Date.now()}`;
}

function startTurns() {
  for (let number = 0; number < ASKING; number += 1) takeTurns();
}

async function takeTurns() {
  for (;;) {
    const number = turn % cards.length;
    turn += 1;
    await refresh(cards[number], number);
  }
}

function refresh(card, number) {
  return new Promise((done) => {
    const fresh = new Image();
    fresh.addEventListener("load", () => {
      const shown = card.querySelector("img");
      fresh.alt = shown.alt;
      shown.replaceWith(fresh);
      shown.removeAttribute("src"); // ends what is still running there
      fresh.parentElement.classList.add("sized");
      setTimeout(done, 20);
    });
    fresh.addEventListener("error", () => setTimeout(done, 500));
    fresh.src = `streams/${number}.jpg?${Date.now()}`;
  });
}

function fact(card, name, value) {
  const cell = card.querySelector(`[data-fact=${name}]`);
  if (cell.textContent !== value) cell.textContent = value;
}

function digits(value, count) {
  return value === null ? "–" : value.toFixed(count);
}

function update(card, stream) {
  card.querySelector("h2").textContent = stream.name;
  card.querySelector("img").alt = `live picture of ${stream.name}`;
  fact(card, "fps", digits(stream.fps, 1));
  fact(card, "latency", `${digits(stream.latency_ms, 0)} ms`);
  fact(card, "p95", `${digits(stream.latency_p95_ms, 0)} ms`);
  fact(card, "dropped", String(stream.dropped));
  fact(card, "frames", String(stream.frames));
  const trouble = [];
  if (stream.decode_errors) trouble.push(`${stream.decode_errors} undecodable`);
  if (stream.reconnects) trouble.push(`${stream.reconnects} reconnects`);
  card.querySelector(".trouble").hidden = trouble.length === 0;
  fact(card, "trouble", trouble.join(", "));
  const badge = card.querySelector(".badge");
  badge.hidden = !stream.away_s;
  badge.textContent = `stale ${Math.round(stream.away_s ?? 0)} s`;
  legend(card.querySelector(".legend"), stream.classes);
}

function legend(list, classes) {
  const key = JSON.stringify(classes);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...classes.map(({ name, color }) => {
    const item = document.createElement("li");
    // An SVG attribute, since the page's policy allows no inline style.
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const square = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    svg.setAttribute("viewBox", "0 0 10 10");
    for (const [key, value] of Object.entries({ width: 10, height: 10, rx: 2.5, fill: color })) {
      square.setAttribute(key, value);
    }
    svg.append(square);
    item.append(svg, name);
    return item;
  }));
}

async function look() {
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const status = await answer.json();
    const many = status.streams.length > RUNNING && !inTurn;
    if (many) inTurn = true; // before the first card asks for a running picture
    while (cards.length < status.streams.length) addCard(cards.length);
    if (many) startTurns();
    status.streams.forEach((stream, number) => update(cards[number], stream));
    document.getElementById("engine").textContent = status.engine.summary ?? "";
    // The runner was restarted: its pictures' streams have to be asked for anew.
    if (link.className === "down") cards.forEach(show);
    link.className = "up";
    link.textContent = "live";
  } catch {
    link.className = "down";
    link.textContent = "the runner does not answer";
  }
  setTimeout(look, PERIOD);
}

look();
