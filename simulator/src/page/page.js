'use strict';
(() => {
  const run = JSON.parse(document.getElementById('recording').textContent);
  const byId = (id) => document.getElementById(id);
  const D = run.datagrams;
  const COUNT = D.sent.length;
  const END = Math.max(run.end, 1);
  const DELIVERED = run.fates.indexOf('delivered');
  const UNDER_WAY = run.fates.indexOf('under way');
  const RAW = run.processes.indexOf('raw');

  // ---------------------------------------------------------------- looks

  // Per kind: its colour on light and on dark paper.
  const KIND_COLOURS = {
    request: ['#2563eb', '#6ea8fe'], response: ['#05905f', '#3ddc97'], ack: ['#0891b2', '#3cc8e6'],
    drop: ['#c2410c', '#fb923c'], feedback: ['#64748b', '#94a3b8'],
    append: ['#7c3aed', '#a98bff'], append_ack: ['#ab8fe0', '#7f68bd'], heartbeat: ['#a3adbd', '#5d6a80'],
    commit_notice: ['#0d9488', '#2dd4bf'],
    vote: ['#d97706', '#fbbf24'], vote_reply: ['#c9a227', '#c4aa55'], timeout_now: ['#b45309', '#f59e0b'],
    refused: ['#dc2626', '#f87171'],
    fetch: ['#db2777', '#f472b6'], bodies: ['#9d174d', '#ec4899'], hint: ['#e07aa8', '#f0a6cb'],
    fragment: ['#8b93a3', '#7b8496'], garbage: ['#525252', '#d4d4d4'],
  };
  const FAMILIES = [
    ['Clients', ['request', 'response', 'ack', 'drop', 'feedback']],
    ['Replication', ['append', 'append_ack', 'heartbeat', 'commit_notice']],
    ['Elections', ['vote', 'vote_reply', 'timeout_now', 'refused']],
    ['Missing bodies', ['fetch', 'bodies', 'hint']],
  ];
  const OUTCOME_COLOURS = {
    ok: ['#cfeedd', '#174a35'], open: ['#e4e7ed', '#2c3342'], unknown: ['#fbe6b8', '#57430f'],
    other: ['#fbd5c8', '#5a2a1a'],
  };
  const PAPER = {
    light: {
      paper: '#ffffff', desk: '#f5f6f8', line: '#e4e7ed', life: '#b4bcca', ink: '#1b2130', soft: '#667085', accent: '#3056d3',
      bad: '#d11f3d', cut: '#c2410c', doubt: '#a06a00', pause: '#8792a6', crash: '#f9d3d9', term: [62, 45],
    },
    dark: {
      paper: '#12151d', desk: '#191d27', line: '#232836', life: '#4a5468', ink: '#e5e8ef', soft: '#939cb0', accent: '#8ba5ff',
      bad: '#ff6b81', cut: '#fb923c', doubt: '#f0c05a', pause: '#77829a', crash: '#4a1d27', term: [55, 48],
    },
  };
  const dark = window.matchMedia('(prefers-color-scheme: dark)');
  let look = dark.matches ? PAPER.dark : PAPER.light;
  const shade = () => (dark.matches ? 1 : 0);
  const kindColour = (kind) => (KIND_COLOURS[run.kinds[kind]] || ['#64748b', '#94a3b8'])[shade()];
  const outcomeColour = (name) => (OUTCOME_COLOURS[name] || OUTCOME_COLOURS.other)[shade()];
  // Neighbouring terms are far apart on the colour wheel.
  const termColour = (term) => `hsl(${(term * 137.508 + 75) % 360} ${look.term[0]}% ${look.term[1]}%)`;
  const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif';

  // ---------------------------------------------------------------- time

  function digitsFor(span) {
    return Math.max(0, Math.min(6, Math.ceil(8 - Math.log10(Math.max(span, 1)))));
  }
  const formatTime = (ns, digits = 6) => `${(ns / 1e6).toFixed(digits)} ms`;
  function formatSpan(ns) {
    if (ns < 1e3) return `${ns} ns`;
    if (ns < 1e6) return `${+(ns / 1e3).toFixed(2)} µs`;
    if (ns < 1e9) return `${+(ns / 1e6).toFixed(3)} ms`;
    return `${+(ns / 1e9).toFixed(3)} s`;
  }
  function parseTime(text) {
    const found = /^\s*([0-9]*\.?[0-9]+)\s*(ns|us|µs|ms|s)?\s*$/.exec(text);
    if (!found) return null;
    return Number(found[1]) * { ns: 1, us: 1e3, 'µs': 1e3, ms: 1e6, s: 1e9 }[found[2] || 'ms'];
  }

  // ---------------------------------------------------------------- what the recording says about processes

  const processes = run.processes.map((name, index) => ({
    name, index, isNode: index < run.nodes, roles: [], disk: [], down: [], paused: [], operations: [], lanes: 1,
  }));
  const jumps = []; // What is drawn across all columns: network changes and violations.
  {
    const open = processes.map(() => ({ role: null, down: null, pause: null }));
    const close = (process, what, at) => {
      const span = open[process][what];
      if (span) span.to = at;
      open[process][what] = null;
    };
    for (const moment of run.moments) {
      const { at, kind, process } = moment;
      if (kind === 'network' || kind === 'violation') jumps.push(moment);
      if (process === null) continue;
      const now = open[process];
      const begin = (what, list, more) => {
        now[what] = { from: at, to: END, ended: false, moment, ...more };
        list.push(now[what]);
      };
      if (kind === 'role') {
        close(process, 'role', at);
        begin('role', processes[process].roles, { role: moment.role, term: moment.term });
      } else if (kind === 'killed' || kind === 'stopped') {
        for (const what of ['role', 'pause', 'down']) close(process, what, at);
        begin('down', processes[process].down, { why: kind });
      } else if (kind === 'started') {
        for (const what of ['role', 'pause', 'down']) close(process, what, at);
      } else if (kind.startsWith('disk')) {
        processes[process].disk.push(moment);
      } else if (kind === 'paused') {
        begin('pause', processes[process].paused, {});
      } else if (kind === 'resumed') {
        close(process, 'pause', at);
      }
    }
    for (const operation of run.operations) {
      const process = processes[operation.process];
      // The first lane that is free.
      let lane = 0;
      const busy = (process.busy ||= []);
      while (busy[lane] !== undefined && busy[lane] > operation.call) lane += 1;
      busy[lane] = operation.end === null ? Infinity : operation.end;
      operation.lane = lane;
      process.operations.push(operation);
      process.lanes = Math.max(process.lanes, lane + 1);
    }
  }

  // How long a datagram takes, as a rule: lost ones are drawn with this slope.
  const usualDelay = (() => {
    const delays = [];
    const step = Math.max(1, Math.floor(COUNT / 2000));
    for (let i = 0; i < COUNT; i += step) {
      if (D.fate[i] === DELIVERED && D.from[i] !== D.to[i]) delays.push(D.at[i] - D.sent[i]);
    }
    delays.sort((a, b) => a - b);
    return delays.length ? Math.max(1, delays[delays.length >> 1]) : 10000;
  })();
  // When what is drawn of a datagram ends.
  const ends = new Float64Array(COUNT);
  // The latest of the ends of all datagrams up to this one: grows, so that a range can be searched for.
  const endsUpTo = new Float64Array(COUNT);
  for (let i = 0, latest = 0; i < COUNT; i += 1) {
    const arrived = D.at[i] > D.sent[i] ? D.at[i] : D.sent[i] + usualDelay * 0.6;
    ends[i] = arrived;
    latest = Math.max(latest, arrived);
    endsUpTo[i] = latest;
  }
  function firstAtLeast(sorted, value) {
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < value) low = middle + 1; else high = middle;
    }
    return low;
  }
  const plain = (text) => text.toLowerCase();
  const searchable = run.texts.map(plain);
  const focus = run.violation ? run.violation.at : Math.max(...[run.lastAt, 0]);

  // ---------------------------------------------------------------- what the user wants to see

  const wanted = {
    kinds: run.kinds.map(() => true),
    fates: run.fates.map(() => true),
    processes: run.processes.map(() => true),
    from: -1,
    to: -1,
    self: false,
    text: '',
  };
  const view = { from: 0, to: END, scroll: 0 };
  let selected = null; // { what: 'datagram' | 'operation' | 'moment', index }
  let hovered = null;
  let shown = new Uint8Array(COUNT);
  let shownCount = 0;

  function applyFilters() {
    const words = plain(wanted.text).trim();
    const textFits = words === '' ? null : searchable.map((text) => text.includes(words));
    const nameFits = (i) => `${run.kinds[D.kind[i]]} ${run.processes[D.from[i]]} ${run.processes[D.to[i]]} #${D.id[i]}`.includes(words);
    shownCount = 0;
    for (let i = 0; i < COUNT; i += 1) {
      const fits = wanted.kinds[D.kind[i]] && wanted.fates[D.fate[i]]
        && wanted.processes[D.from[i]] && wanted.processes[D.to[i]]
        && (wanted.from < 0 || wanted.from === D.from[i]) && (wanted.to < 0 || wanted.to === D.to[i])
        && (wanted.self || D.from[i] !== D.to[i])
        && (!textFits || textFits[D.text[i]] || nameFits(i));
      shown[i] = fits ? 1 : 0;
      shownCount += fits ? 1 : 0;
    }
    byId('found').textContent = words === '' ? '' : `${grouped(shownCount)} datagrams`;
  }
  const grouped = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, '\u202f');

  // ---------------------------------------------------------------- the diagram

  const canvas = byId('canvas');
  const pen = canvas.getContext('2d');
  const AXIS = 92;
  const HEAD = 34;
  const MAP = 46;
  const LANE = 8; // Half the width of a node's bar.
  let [width, height, ratio] = [0, 0, 1];
  let columns = []; // Per process: { x, width, left }, or null where it is hidden.
  let diagramWidth = 0;
  let operationWidth = 15;
  let hits = []; // Rectangles of this picture: { x, y, w, h, what, index, tip }.
  let drawnLines = []; // Datagrams of this picture: [index, x1, y1, x2, y2].
  let drawn = {};
  let taken = []; // Where labels are.

  function layOut() {
    const visible = processes.filter((process) => wanted.processes[process.index]);
    const room = width - AXIS - MAP - 12;
    let [needs, total] = [[], Infinity];
    for (operationWidth of [15, 11, 8]) {
      if (total <= room) break;
      needs = visible.map((process) => (process.isNode ? 92 : Math.max(64, process.lanes * (operationWidth + 2) + 14 + 2 * operationWidth)));
      total = needs.reduce((sum, need) => sum + need, 0);
    }
    const stretch = total < room && total > 0 ? Math.min(room / total, 2.6) : 1;
    columns = processes.map(() => null);
    let left = AXIS + Math.max(0, (room - total * stretch) / 2);
    visible.forEach((process, place) => {
      const columnWidth = needs[place] * stretch;
      // Operations stand to the right of their client's line.
      const beside = process.isNode ? 0 : process.lanes * (operationWidth + 2) + 7;
      columns[process.index] = { left, width: columnWidth, x: left + Math.max(14, (columnWidth - beside) / 2) };
      left += columnWidth;
    });
    diagramWidth = left + 12;
    view.scroll = Math.max(0, Math.min(view.scroll, diagramWidth - (width - MAP)));
  }
  const scale = () => (height - HEAD) / (view.to - view.from);
  const yOf = (time) => HEAD + (time - view.from) * scale();
  const timeOf = (y) => view.from + (y - HEAD) / scale();
  // Where lines begin and end in a column, seen from another.
  function edge(process, other) {
    const column = columns[process];
    const half = processes[process].isNode ? LANE : 3;
    const x = column.x - view.scroll;
    return columns[other].x >= column.x ? x + half : x - half;
  }

  let queued = false;
  function redraw() {
    if (queued) return;
    queued = true;
    requestAnimationFrame(() => { queued = false; draw(); });
  }

  function draw() {
    layOut();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.globalAlpha = 1;
    pen.fillStyle = look.paper;
    pen.fillRect(0, 0, width, height);
    hits = [];
    taken = [];
    drawn = {
      from: view.from, to: view.to, datagrams: 0, arrows: 0, crosses: { }, kinds: {}, terms: [], candidates: [], crashes: [],
      pauses: [], operations: [], network: 0, disks: 0, violation: null, shown: shownCount,
    };
    pen.save();
    pen.beginPath();
    pen.rect(0, HEAD, width - MAP, height - HEAD);
    pen.clip();
    drawGrid();
    const across = jumpsInView();
    drawJumps(across);
    drawOperations();
    drawDatagrams();
    drawLives();
    if (drawn.datagrams <= LABELS_MAX) labelLines();
    labelJumps(across);
    drawSelection();
    pen.restore();
    drawAxis();
    drawHeads();
    drawSides();
    drawMap();
    tellDrawn();
  }

  function niceStep(span, most) {
    const rough = span / Math.max(1, most);
    const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
    for (const factor of [1, 2, 5, 10]) if (power * factor >= rough) return Math.max(1, power * factor);
    return power * 10;
  }
  function ticks() {
    const step = niceStep(view.to - view.from, (height - HEAD) / 52);
    const list = [];
    for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) list.push(time);
    return [list, step];
  }

  function drawGrid() {
    pen.strokeStyle = look.line;
    pen.lineWidth = 1;
    pen.beginPath();
    for (const time of ticks()[0]) {
      const y = Math.round(yOf(time)) + 0.5;
      pen.moveTo(AXIS, y);
      pen.lineTo(width - MAP, y);
    }
    pen.stroke();
  }

  function drawAxis() {
    pen.fillStyle = look.paper;
    pen.globalAlpha = 0.88;
    pen.fillRect(0, HEAD, AXIS - 4, height - HEAD);
    pen.globalAlpha = 1;
    const [list, step] = ticks();
    const digits = Math.max(0, Math.min(6, Math.ceil(6 - Math.log10(step))));
    pen.font = `11px ${FONT}`;
    pen.textAlign = 'right';
    pen.textBaseline = 'middle';
    pen.fillStyle = look.soft;
    for (const time of list) {
      const y = yOf(time);
      if (y > HEAD + 6) pen.fillText(formatTime(time, digits), AXIS - 12, y);
    }
  }

  function drawHeads() {
    pen.fillStyle = look.desk;
    pen.fillRect(0, 0, width, HEAD);
    pen.fillStyle = look.line;
    pen.fillRect(0, HEAD - 1, width, 1);
    pen.textAlign = 'center';
    pen.textBaseline = 'middle';
    for (const process of processes) {
      const column = columns[process.index];
      if (!column) continue;
      const x = column.x - view.scroll;
      if (x < AXIS - column.width || x > width - MAP - 20) continue;
      pen.font = `600 13px ${FONT}`;
      pen.fillStyle = look.ink;
      pen.fillText(process.name, x, HEAD / 2 - 1);
      hits.push({ x: column.left - view.scroll, y: 0, w: column.width, h: HEAD, what: 'process', index: process.index, tip: headTip(process) });
    }
  }
  // There is more at the sides.
  function drawSides() {
    pen.font = `700 16px ${FONT}`;
    pen.fillStyle = look.accent;
    pen.textAlign = 'center';
    if (diagramWidth - view.scroll > width - MAP + 14) pen.fillText('›', width - MAP - 8, HEAD / 2 - 2);
    if (view.scroll > 14) pen.fillText('‹', AXIS - 8, HEAD / 2 - 2);
  }
  function headTip(process) {
    if (process.isNode) return `Node ${process.name.slice(1)}`;
    return process.index === RAW ? 'Addresses of the test’s own' : `Client ${process.name.slice(1)}: ${grouped(process.operations.length)} operations`;
  }

  const inView = (from, to) => to >= view.from && from <= view.to;

  // Lifelines, roles, pauses, crashes.
  function drawLives() {
    for (const process of processes) {
      const column = columns[process.index];
      if (!column) continue;
      const x = column.x - view.scroll;
      pen.strokeStyle = look.life;
      pen.lineWidth = process.isNode ? 2 : 1;
      pen.beginPath();
      pen.moveTo(x, Math.max(HEAD, yOf(0)));
      pen.lineTo(x, Math.min(height, yOf(END)));
      pen.stroke();
      for (const [index, span] of process.roles.entries()) {
        if (!inView(span.from, span.to) || span.role === 'follower') continue;
        drawRole(process, x, span, index);
      }
      for (const moment of process.disk) if (inView(moment.at, moment.at)) drawDisk(process, x, moment);
      for (const span of process.paused) if (inView(span.from, span.to)) drawPause(process, x, span);
      for (const span of process.down) if (inView(span.from, span.to)) drawCrash(process, x, span);
    }
  }
  function clampSpan(span) {
    const top = Math.max(yOf(span.from), HEAD - 20);
    const bottom = Math.min(yOf(span.to), height + 20);
    return [top, Math.max(bottom, top + 2)];
  }
  function drawRole(process, x, span) {
    const [top, bottom] = clampSpan(span);
    const colour = termColour(span.term);
    const isLeader = span.role === 'leader';
    if (isLeader) {
      pen.fillStyle = colour;
      pen.fillRect(x - LANE, top, 2 * LANE, bottom - top);
      drawn.terms.push({ process: process.name, term: span.term, from: span.from, to: span.to, colour });
    } else {
      pen.fillStyle = look.paper;
      pen.fillRect(x - LANE, top, 2 * LANE, bottom - top);
      hatch(x - LANE, top, 2 * LANE, bottom - top, colour, 5, 2);
      pen.strokeStyle = colour;
      pen.lineWidth = 1;
      pen.strokeRect(x - LANE + 0.5, top + 0.5, 2 * LANE - 1, bottom - top - 1);
      drawn.candidates.push({ process: process.name, term: span.term, from: span.from, to: span.to });
    }
    hits.push({
      x: x - LANE, y: top, w: 2 * LANE, h: bottom - top, what: 'moment', index: span.moment.number,
      tip: `${process.name} ${isLeader ? 'leads' : 'stands for election in'} term ${span.term}\n${formatTime(span.from)} to ${formatTime(span.to)}`,
    });
    if (bottom - Math.max(top, HEAD) > 16 && isLeader) {
      const y = Math.max(top, HEAD) + 9;
      pen.font = `700 10px ${FONT}`;
      pen.textAlign = 'center';
      pen.textBaseline = 'middle';
      pen.fillStyle = '#fff';
      pen.fillText(span.term > 99 ? '…' : String(span.term), x, y);
    }
    if (yOf(span.from) > HEAD && bottom - top > 14) label(x + LANE + 5, top + 8, isLeader ? `leads term ${span.term}` : `candidate ${span.term}`, colour);
  }
  function drawPause(process, x, span) {
    const [top, bottom] = clampSpan(span);
    pen.fillStyle = look.paper;
    pen.globalAlpha = 0.6;
    pen.fillRect(x - LANE - 3, top, 2 * LANE + 6, bottom - top);
    pen.globalAlpha = 1;
    hatch(x - LANE - 3, top, 2 * LANE + 6, bottom - top, look.pause, 7, 1.5);
    pen.strokeStyle = look.pause;
    pen.lineWidth = 1.5;
    pen.strokeRect(x - LANE - 3, top, 2 * LANE + 6, bottom - top);
    hits.push({
      x: x - LANE - 3, y: top, w: 2 * LANE + 6, h: bottom - top, what: 'moment', index: span.moment.number,
      tip: `${process.name} is paused for ${formatSpan(span.to - span.from)}\nWhat arrives waits in its sockets.`,
    });
    if (bottom - top > 14) label(x + LANE + 7, Math.max(top, HEAD) + 9, 'paused', look.soft);
    drawn.pauses.push({ process: process.name, from: span.from, to: span.to });
  }
  function drawDisk(process, x, moment) {
    const y = yOf(moment.at);
    const colour = moment.kind === 'disk' ? look.bad : look.soft;
    pen.fillStyle = look.paper;
    pen.strokeStyle = colour;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, 5, 0, 2 * Math.PI);
    pen.fill();
    pen.stroke();
    label(x + LANE + 6, y, moment.headline.replace(` of ${process.name}`, ''), colour);
    hits.push({ x: x - 7, y: y - 7, w: 14, h: 14, what: 'moment', index: moment.number, tip: moment.text });
    drawn.disks += 1;
  }
  function drawCrash(process, x, span) {
    const [top, bottom] = clampSpan(span);
    pen.fillStyle = look.paper;
    pen.fillRect(x - 2, top, 4, bottom - top);
    pen.fillStyle = look.crash;
    pen.fillRect(x - LANE, top, 2 * LANE, bottom - top);
    const y = yOf(span.from);
    if (y > HEAD - 12) {
      pen.strokeStyle = look.bad;
      pen.lineWidth = 3.5;
      pen.lineCap = 'round';
      pen.beginPath();
      pen.moveTo(x - 8, y - 8); pen.lineTo(x + 8, y + 8);
      pen.moveTo(x + 8, y - 8); pen.lineTo(x - 8, y + 8);
      pen.stroke();
      pen.lineCap = 'butt';
    }
    const word = span.why === 'killed' ? 'killed' : 'stopped';
    if (bottom - top > 14) label(x + LANE + 6, Math.max(y, HEAD + 8), y > HEAD ? word : `${word} before`, look.bad, true);
    hits.push({
      x: x - LANE - 2, y: top - 8, w: 2 * LANE + 4, h: bottom - top + 8, what: 'moment', index: span.moment.number,
      tip: `${process.name} is ${word} at ${formatTime(span.from)}`,
    });
    drawn.crashes.push({ process: process.name, why: span.why, from: span.from, to: span.to });
  }
  function hatch(x, y, w, h, colour, gap, thickness) {
    pen.save();
    pen.beginPath();
    pen.rect(x, y, w, h);
    pen.clip();
    pen.strokeStyle = colour;
    pen.lineWidth = thickness;
    pen.beginPath();
    const first = Math.max(y, HEAD - 30);
    const last = Math.min(y + h, height + 30);
    for (let at = first - w - ((first - w - y) % gap); at < last + w; at += gap) {
      pen.moveTo(x, at + w);
      pen.lineTo(x + w, at);
    }
    pen.stroke();
    pen.restore();
  }
  function label(x, y, text, colour, strong = false) {
    pen.font = `${strong ? 700 : 500} 11px ${FONT}`;
    pen.textAlign = 'left';
    pen.textBaseline = 'middle';
    pen.lineWidth = 4;
    pen.lineJoin = 'round';
    pen.strokeStyle = look.paper;
    pen.strokeText(text, x, y);
    pen.fillStyle = colour;
    pen.fillText(text, x, y);
    for (let along = 4; along < pen.measureText(text).width; along += 10) taken.push([x + along, y + 5]);
  }

  function drawOperations() {
    for (const process of processes) {
      const column = columns[process.index];
      if (!column) continue;
      for (const operation of process.operations) {
        const end = operation.end === null ? END : operation.end;
        if (!inView(operation.call, end)) continue;
        if (wanted.text && !operationFits(operation)) continue;
        const [top, bottom] = clampSpan({ from: operation.call, to: end });
        const x = column.x - view.scroll + 7 + operation.lane * (operationWidth + 2);
        const h = Math.max(3, bottom - top);
        pen.fillStyle = outcomeColour(operation.outcome);
        round(x, top, operationWidth, h, 3);
        pen.fill();
        if (operation.end === null) hatch(x, top, operationWidth, h, look.life, 6, 1);
        pen.strokeStyle = isSelected('operation', operation.number) ? look.accent : look.life;
        pen.lineWidth = isSelected('operation', operation.number) ? 2 : 1;
        round(x + 0.5, top + 0.5, operationWidth - 1, h - 1, 3);
        pen.stroke();
        hits.push({
          x, y: top, w: operationWidth, h, what: 'operation', index: operation.number,
          tip: `${process.name}: ${operation.asks}\n${operation.end === null ? 'not ended' : `${operation.says} after ${formatSpan(end - operation.call)}`}`,
        });
        drawn.operations.push({ process: process.name, outcome: operation.outcome, from: operation.call, to: operation.end });
        const low = Math.max(top, HEAD);
        const room = operationWidth < 11 ? 0 : Math.min(bottom, height) - low;
        const text = operation.end === null ? operation.asks : `${operation.asks} → ${operation.says}`;
        if (room > 46) {
          pen.save();
          pen.beginPath();
          pen.rect(x, low, operationWidth, room);
          pen.clip();
          pen.translate(x + operationWidth / 2 + 0.5, low + 6);
          pen.rotate(Math.PI / 2);
          pen.font = `10.5px ${FONT}`;
          pen.textAlign = 'left';
          pen.textBaseline = 'middle';
          pen.fillStyle = look.ink;
          pen.fillText(text, 0, 0);
          pen.restore();
        } else if (operation.lane === process.lanes - 1 && h > 10 && operationWidth > 11) {
          label(x + operationWidth + 4, low + Math.min(room, h) / 2, text.length > 24 ? `${text.slice(0, 23)}…` : text, look.soft);
        }
      }
    }
  }
  const operationFits = (operation) => plain(`${operation.asks} ${operation.says} ${operation.key} · ${run.processes[operation.process]}`).includes(plain(wanted.text).trim());
  function round(x, y, w, h, r) {
    pen.beginPath();
    pen.roundRect(x, y, w, h, Math.min(r, h / 2));
  }

  // Calls `visit(index)` for every datagram in the view that passes the filters, in the order of sending.
  function eachInView(visit) {
    for (let i = firstAtLeast(endsUpTo, view.from); i < COUNT && D.sent[i] <= view.to; i += 1) {
      if (shown[i] && ends[i] >= view.from) visit(i);
    }
  }

  const LABELS_MAX = 70;
  const HEADS_MAX = 2500;
  const PATH_MAX = 256;
  function drawDatagrams() {
    const visible = [];
    eachInView((i) => visible.push(i));
    const few = visible.length <= HEADS_MAX;
    const grain = visible.length > 6000 ? 2 : 1;
    const lines = new Map(); // By colour and dash.
    const seen = new Set();
    const marks = [];
    drawnLines = [];
    const right = width - MAP;
    const faint = visible.length > 4000 ? 0.25 : visible.length > 1200 ? 0.4 : visible.length > 300 ? 0.65 : 0.9;
    for (const i of visible) {
      drawn.datagrams += 1;
      const kind = run.kinds[D.kind[i]];
      drawn.kinds[kind] = (drawn.kinds[kind] || 0) + 1;
      const fate = run.fates[D.fate[i]];
      const arrives = fate === 'delivered' || fate === 'unheard' || fate === 'overflowed';
      if (fate === 'delivered') drawn.arrows += 1; else drawn.crosses[fate] = (drawn.crosses[fate] || 0) + 1;
      const [a, b] = [D.from[i], D.to[i]];
      const y1 = yOf(D.sent[i]);
      let [x1, x2, y2] = [0, 0, 0];
      if (a === b) {
        x1 = x2 = columns[a].x - view.scroll - LANE;
        y2 = yOf(ends[i]);
      } else {
        x1 = edge(a, b);
        x2 = edge(b, a);
        y2 = yOf(ends[i]);
        if (!arrives) {
          const share = fate === 'under way' ? 0.22 : 0.6;
          x2 = x1 + (x2 - x1) * share;
          y2 = y1 + (yOf(D.sent[i] + usualDelay) - y1) * share;
        }
      }
      if (Math.max(x1, x2) < 0 || Math.min(x1, x2) > right) continue;
      if (!few) {
        // What falls onto the same pixels is drawn once.
        const key = ((a * processes.length + b) * run.kinds.length + D.kind[i]) * run.fates.length + D.fate[i];
        const row = (y) => Math.min(4095, Math.max(0, Math.round(y / grain)));
        const place = (key * 4096 + row(y1)) * 4096 + row(y2);
        if (seen.has(place)) continue;
        seen.add(place);
      }
      drawnLines.push([i, x1, y1, x2, y2]);
      const dash = fate === 'under way' ? 'way' : D.copyOf[i] ? 'copy' : '';
      const style = `${kindColour(D.kind[i])}|${dash}`;
      if (!lines.has(style)) lines.set(style, []);
      const parts = lines.get(style);
      // Long paths take more than their share of time.
      if (!parts.length || parts[parts.length - 1].count === PATH_MAX) parts.push({ path: new Path2D(), heads: new Path2D(), count: 0 });
      const part = parts[parts.length - 1];
      part.count += 1;
      const { path, heads } = part;
      path.moveTo(x1, y1);
      if (a === b) path.bezierCurveTo(x1 - 22, y1, x1 - 22, y2, x2, y2); else path.lineTo(x2, y2);
      if (few && arrives) arrowHead(heads, a === b ? x2 - 10 : x1, a === b ? y2 : y1, x2, y2);
      if (fate !== 'delivered' && fate !== 'under way') marks.push([fate, x2, y2, x1, y1]);
      if (D.corrupted[i]) marks.push(['corrupted', (x1 + x2) / 2, (y1 + y2) / 2, x1, y1]);
    }
    pen.lineWidth = few && visible.length < 400 ? 1.4 : 1;
    pen.globalAlpha = faint;
    for (const [style, parts] of lines) {
      const [colour, dash] = style.split('|');
      pen.setLineDash(dash === 'copy' ? [5, 3] : dash === 'way' ? [2, 3] : []);
      pen.strokeStyle = pen.fillStyle = colour;
      for (const { path } of parts) pen.stroke(path);
      pen.setLineDash([]);
      if (few) for (const { heads } of parts) pen.fill(heads);
    }
    pen.globalAlpha = 1;
    const size = visible.length > 1500 ? 2.5 : visible.length > 300 ? 3.5 : 5;
    for (const [fate, x, y, fromX, fromY] of marks) mark(fate, x, y, size, fromX, fromY);
  }
  function arrowHead(path, x1, y1, x2, y2) {
    const length = Math.hypot(x2 - x1, y2 - y1) || 1;
    const [dx, dy] = [(x2 - x1) / length, (y2 - y1) / length];
    path.moveTo(x2, y2);
    path.lineTo(x2 - dx * 8 - dy * 3.2, y2 - dy * 8 + dx * 3.2);
    path.lineTo(x2 - dx * 8 + dy * 3.2, y2 - dy * 8 - dx * 3.2);
    path.closePath();
  }
  // What keeps a datagram from arriving: each has its own shape, not only its colour.
  function mark(fate, x, y, size, fromX, fromY, to = pen) {
    to.lineWidth = size > 4 ? 2 : 1.5;
    to.strokeStyle = fate === 'lost' ? look.bad : fate === 'corrupted' ? look.doubt : look.cut;
    to.beginPath();
    if (fate === 'lost') {
      to.moveTo(x - size, y - size); to.lineTo(x + size, y + size);
      to.moveTo(x + size, y - size); to.lineTo(x - size, y + size);
    } else if (fate === 'cut off') {
      const length = Math.hypot(x - fromX, y - fromY) || 1;
      const [dx, dy] = [(x - fromX) / length, (y - fromY) / length];
      to.moveTo(x - dy * size * 1.5, y + dx * size * 1.5);
      to.lineTo(x + dy * size * 1.5, y - dx * size * 1.5);
    } else if (fate === 'corrupted') {
      to.moveTo(x - size, y + size * 0.7); to.lineTo(x - size / 3, y - size * 0.7);
      to.lineTo(x + size / 3, y + size * 0.7); to.lineTo(x + size, y - size * 0.7);
    } else if (fate === 'overflowed') {
      to.rect(x - size, y - size, 2 * size, 2 * size);
    } else {
      to.arc(x, y, size, 0, 2 * Math.PI);
    }
    to.stroke();
  }
  // Names along lines, as long as there is room for them.
  function labelLines() {
    pen.font = `10.5px ${FONT}`;
    pen.textAlign = 'center';
    pen.textBaseline = 'bottom';
    for (const [i, x1, y1, x2, y2] of drawnLines) {
      const length = Math.hypot(x2 - x1, y2 - y1);
      const name = run.kinds[D.kind[i]].replaceAll('_', ' ');
      const long = `${name} · ${run.texts[D.text[i]].split(' · ')[0]}`;
      let text = pen.measureText(long).width < length - 30 ? long : name;
      if (pen.measureText(text).width > length - 16) continue;
      const [x, y] = [x1 + (x2 - x1) * 0.5, y1 + (y2 - y1) * 0.5];
      const reach = pen.measureText(text).width / 2;
      const slope = (y2 - y1) / (x2 - x1 || 1);
      // Boxes along the text stand for it, so that sloping labels do not keep each other away needlessly.
      const spots = [];
      for (let along = -reach; along <= reach; along += 10) spots.push([x + along, y + along * slope]);
      if (spots.some(([sx, sy]) => taken.some(([tx, ty]) => Math.abs(tx - sx) < 10 && Math.abs(ty - sy) < 11))) continue;
      taken.push(...spots);
      let angle = Math.atan2(y2 - y1, x2 - x1);
      if (angle > Math.PI / 2) angle -= Math.PI;
      if (angle < -Math.PI / 2) angle += Math.PI;
      pen.save();
      pen.translate(x, y);
      pen.rotate(angle);
      pen.lineWidth = 3;
      pen.lineJoin = 'round';
      pen.strokeStyle = look.paper;
      pen.strokeText(text, 0, -2);
      pen.fillStyle = kindColour(D.kind[i]);
      pen.fillText(text, 0, -2);
      pen.restore();
    }
  }

  // Changes of the network and violations go across. Of several in one place the last is told.
  function jumpsInView() {
    const inside = jumps.filter((moment) => moment.at >= view.from && moment.at <= view.to);
    const isBad = (moment) => moment.kind === 'violation';
    const changes = inside.filter((moment) => !isBad(moment));
    drawn.network = changes.length;
    for (const moment of inside.filter(isBad)) drawn.violation = { at: moment.at, text: moment.text };
    const crowded = changes.length > 8;
    const list = inside.map((moment) => ({ moment, y: Math.round(yOf(moment.at)) + 0.5, bad: isBad(moment), short: crowded && !isBad(moment), told: isBad(moment) }));
    let next = Infinity;
    for (const jump of list.filter(({ bad }) => !bad).reverse()) {
      jump.told = !crowded && next - jump.y >= 16;
      if (jump.told || next === Infinity) next = jump.y;
    }
    return list;
  }
  function drawJumps(list) {
    for (const { moment, y, bad, short } of list) {
      pen.strokeStyle = bad ? look.bad : look.doubt;
      pen.lineWidth = bad ? 2 : 1;
      pen.setLineDash(bad ? [] : [6, 4]);
      pen.beginPath();
      pen.moveTo(AXIS - 8, y);
      pen.lineTo(short ? AXIS : width - MAP, y);
      pen.stroke();
      pen.setLineDash([]);
      hits.push({ x: AXIS - 8, y: y - 3, w: width - MAP - AXIS, h: 6, what: 'moment', index: moment.number, tip: clip(moment.text, 600) });
    }
  }
  function labelJumps(list) {
    const most = Math.floor((width - MAP - AXIS) / 6.4);
    for (const { moment, y, bad, told } of list) {
      if (!told) continue;
      const text = clip(moment.headline, most);
      // What went wrong is told below its line: above is what it came from.
      label(AXIS, bad ? y + 11 : y - 8, text, bad ? look.bad : look.doubt, bad);
      hits.push({ x: AXIS - 8, y: bad ? y : y - 16, w: text.length * 6.2, h: 19, what: 'moment', index: moment.number, tip: clip(moment.text, 600) });
    }
  }
  const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  function drawSelection() {
    for (const [spot, strong] of [[hovered, false], [selected, true]]) {
      if (!spot || spot.what !== 'datagram') continue;
      const family = new Set(relatives(spot.index));
      for (const [i, x1, y1, x2, y2] of drawnLines) {
        if (i !== spot.index && !family.has(i)) continue;
        pen.strokeStyle = kindColour(D.kind[i]);
        pen.lineWidth = i === spot.index ? (strong ? 4 : 3) : 2;
        pen.globalAlpha = i === spot.index ? 1 : 0.6;
        pen.beginPath();
        pen.moveTo(x1, y1);
        if (D.from[i] === D.to[i]) pen.bezierCurveTo(x1 - 22, y1, x1 - 22, y2, x2, y2); else pen.lineTo(x2, y2);
        pen.stroke();
        if (i === spot.index && strong) {
          pen.fillStyle = look.accent;
          for (const [x, y] of [[x1, y1], [x2, y2]]) {
            pen.beginPath();
            pen.arc(x, y, 4, 0, 2 * Math.PI);
            pen.fill();
          }
        }
        pen.globalAlpha = 1;
      }
    }
  }

  // The whole run at the right edge: how much is under way when, what went wrong, and what is in view.
  const mapped = { key: '', picture: null };
  function drawMap() {
    const x = width - MAP;
    const inner = height - HEAD;
    const key = `${inner}|${shownCount}|${dark.matches}|${JSON.stringify(wanted)}`;
    if (mapped.key !== key) {
      const bins = new Float64Array(Math.max(1, Math.floor(inner)));
      const losses = new Float64Array(bins.length);
      for (let i = 0; i < COUNT; i += 1) {
        if (!shown[i]) continue;
        const bin = Math.min(bins.length - 1, Math.floor((D.sent[i] / END) * bins.length));
        bins[bin] += 1;
        if (D.fate[i] !== DELIVERED && D.fate[i] !== UNDER_WAY) losses[bin] += 1;
      }
      mapped.key = key;
      mapped.picture = { bins, losses, most: Math.sqrt(Math.max(1, bins.reduce((most, bin) => Math.max(most, bin), 0))) };
    }
    const { bins, losses, most } = mapped.picture;
    pen.fillStyle = look.desk;
    pen.fillRect(x, HEAD, MAP, inner);
    pen.fillStyle = look.line;
    pen.fillRect(x, HEAD, 1, inner);
    for (let at = 0; at < bins.length; at += 1) {
      if (!bins[at]) continue;
      const long = (Math.sqrt(bins[at]) / most) * (MAP - 12);
      pen.fillStyle = look.life;
      pen.fillRect(x + 6, HEAD + at, long, 1);
      if (losses[at]) {
        pen.fillStyle = look.bad;
        pen.fillRect(x + 6, HEAD + at, (long * losses[at]) / bins[at], 1);
      }
    }
    const place = (time) => HEAD + (time / END) * inner;
    for (const process of processes) {
      for (const span of process.roles) {
        if (span.role !== 'leader') continue;
        pen.fillStyle = termColour(span.term);
        pen.fillRect(x + 2, place(span.from), 3, Math.max(1, place(span.to) - place(span.from)));
      }
      for (const span of process.down) {
        pen.fillStyle = look.bad;
        pen.fillRect(x + MAP - 7, place(span.from) - 2, 5, 4);
      }
    }
    for (const moment of jumps) {
      if (moment.kind !== 'violation') continue;
      pen.fillStyle = look.bad;
      pen.fillRect(x, place(moment.at) - 1, MAP, 2);
    }
    const [top, bottom] = [place(Math.max(0, view.from)), place(Math.min(END, view.to))];
    pen.strokeStyle = look.accent;
    pen.lineWidth = 1.5;
    pen.strokeRect(x + 1, top - 1, MAP - 2, Math.max(5, bottom - top + 2));
    pen.globalAlpha = 0.12;
    pen.fillStyle = look.accent;
    pen.fillRect(x + 1, top - 1, MAP - 2, Math.max(5, bottom - top + 2));
    pen.globalAlpha = 1;
  }

  // ---------------------------------------------------------------- what is said besides

  function tellDrawn() {
    byId('drawn').textContent = JSON.stringify(drawn);
    const missed = Object.values(drawn.crosses).reduce((sum, count) => sum + count, 0);
    byId('status').textContent = `${grouped(drawn.datagrams)} datagrams in view (${grouped(missed)} do not arrive), `
      + `${grouped(shownCount)} pass the filters, ${grouped(COUNT)} recorded; ${formatSpan(Math.round(view.to - view.from))} of ${formatSpan(END)}`;
    canvas.setAttribute('aria-label', `Space-time diagram, ${formatTime(view.from)} to ${formatTime(view.to)}: ${byId('status').textContent}`);
    const digits = digitsFor(view.to - view.from);
    for (const [id, time] of [['time-from', view.from], ['time-to', view.to]]) {
      if (document.activeElement !== byId(id)) byId(id).value = formatTime(time, digits);
    }
    tellSoon();
  }
  let telling = 0;
  function tellSoon() {
    clearTimeout(telling);
    telling = setTimeout(() => { writeAddress(); if (!byId('log').hidden) fillLog(); markMoments(); }, 120);
  }

  // All copies of one multicast, and the copies that the network made.
  function relatives(index) {
    const list = [];
    const same = (i) => D.sent[i] === D.sent[index] && D.from[i] === D.from[index];
    const related = (i) => i !== index && ((D.group[index] && D.group[i] && D.text[i] === D.text[index] && D.kind[i] === D.kind[index])
      || (D.copyOf[i] || D.id[i]) === (D.copyOf[index] || D.id[index]));
    for (let i = index; i >= 0 && same(i); i -= 1) if (related(i)) list.unshift(i);
    for (let i = index + 1; i < COUNT && same(i); i += 1) if (related(i)) list.push(i);
    return list;
  }
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith('on')) made.addEventListener(key.slice(2), value); else if (value !== null) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }
  const swatch = (colour) => element('span', { class: 'swatch', style: `background:${colour}` });
  const definition = (pairs) => element('dl', {}, ...pairs.filter(Boolean).flatMap(([term, text]) => [element('dt', {}, term), element('dd', {}, text)]));
  const kindName = (kind) => run.kinds[kind].replaceAll('_', ' ');

  const isSelected = (what, index) => selected !== null && selected.what === what && selected.index === index;
  function select(what, index, reveal = false) {
    selected = what === null ? null : { what, index };
    if (selected && reveal) revealSelected();
    fillDetails();
    redraw();
  }
  function revealSelected() {
    const { what, index } = selected;
    const [from, to] = what === 'datagram' ? [D.sent[index], ends[index]]
      : what === 'operation' ? [run.operations[index].call, run.operations[index].end ?? run.operations[index].call]
        : [run.moments[index].at, run.moments[index].at];
    if (from >= view.from && Math.min(to, from) <= view.to) return;
    lookAt((from + to) / 2, Math.max(view.to - view.from, (to - from) * 2), 0.5);
  }
  function closeButton() {
    return element('button', { type: 'button', 'aria-label': 'Close', title: 'Close (Esc)', onclick: () => select(null) }, '×');
  }
  function fillDetails() {
    const box = byId('details');
    box.replaceChildren();
    if (!selected) return;
    const { what, index } = selected;
    if (what === 'datagram') {
      const fate = run.fates[D.fate[index]];
      const others = relatives(index);
      box.append(
        element('h3', {}, swatch(kindColour(D.kind[index])), `${kindName(D.kind[index])} `, `${run.processes[D.from[index]]} → ${run.processes[D.to[index]]}`, closeButton()),
        element('p', { class: 'says' }, run.texts[D.text[index]]),
        definition([
          ['datagram', `#${D.id[index]}, ${D.len[index]} B${D.group[index] ? ', multicast' : ''}`],
          ['sent', formatTime(D.sent[index])],
          [fate, D.at[index] < 0 ? 'when the recording ends' : `${formatTime(D.at[index])}${D.at[index] > D.sent[index] ? `, after ${formatSpan(D.at[index] - D.sent[index])}` : ''}`],
          D.copyOf[index] ? ['copy', `the network’s second copy of #${D.copyOf[index]}`] : null,
          D.corrupted[index] ? ['damaged', 'one bit was flipped on the way'] : null,
        ]),
      );
      if (others.length) {
        box.append(element('div', { class: 'links' }, ...others.map((other) => element('button', {
          type: 'button', onclick: () => select('datagram', other, true),
        }, `${D.copyOf[other] ? 'copy ' : ''}→ ${run.processes[D.to[other]]}${D.fate[other] === DELIVERED ? '' : ` (${run.fates[D.fate[other]]})`}`))));
      }
    } else if (what === 'operation') {
      const operation = run.operations[index];
      box.append(
        element('h3', {}, swatch(outcomeColour(operation.outcome)), `${run.processes[operation.process]}: ${operation.asks}`, closeButton()),
        element('p', { class: 'says' }, operation.end === null ? 'not ended when the recording ends' : operation.says),
        definition([
          ['operation', `${operation.ticket}, ${operation.kind}`],
          ['outcome', operation.outcome],
          ['invoked', formatTime(operation.call)],
          operation.end === null ? null : ['ended', `${formatTime(operation.end)}, after ${formatSpan(operation.end - operation.call)}`],
          operation.index === null ? null : ['log entry', String(operation.index)],
          operation.attempts === null ? null : ['sent', operation.attempts === 1 ? 'once' : `${operation.attempts} times`],
          operation.key === '' ? null : ['known as', operation.key],
        ]),
      );
      if (operation.key !== '') {
        box.append(element('div', { class: 'links' }, element('button', {
          type: 'button', onclick: () => { byId('text').value = wanted.text = `${operation.key} ·`; filtersChanged(); },
        }, 'Only its datagrams')));
      }
    } else {
      const moment = run.moments[index];
      box.append(
        element('h3', {}, momentMark(moment), moment.kind === 'violation' ? 'Where it went wrong' : moment.headline, closeButton()),
        element('p', { class: 'says' }, moment.kind === 'violation' ? moment.headline : moment.detail || moment.text),
        definition([['at', formatTime(moment.at)], moment.process === null ? null : ['process', run.processes[moment.process]]]),
      );
    }
  }

  const MARKS = { killed: '×', stopped: '×', paused: '‖', resumed: '▸', started: '•', disk: '◍', 'disk works': '◍', network: '≀', violation: '!' };
  function momentMark(moment) {
    if (moment.kind === 'role') {
      const square = swatch(moment.role === 'follower' ? look.life : termColour(moment.term));
      if (moment.role === 'candidate') square.style.background = `repeating-linear-gradient(135deg, ${termColour(moment.term)} 0 2px, transparent 2px 4px)`;
      return square;
    }
    const colour = { killed: look.bad, stopped: look.bad, violation: look.bad, network: look.doubt, disk: look.bad }[moment.kind] || look.soft;
    return element('span', { class: 'mark', style: `color:${colour}` }, MARKS[moment.kind] || '•');
  }
  // What is in brackets is told smaller.
  function headline(moment) {
    const [, text, aside] = /^(.*?)(?: \((.*)\))?$/s.exec(moment.headline);
    return element('span', { class: 'text' }, clip(text, 160), aside ? element('small', {}, aside) : null);
  }
  function fillMoments() {
    const rows = run.moments.filter((moment) => !(moment.kind === 'role' && moment.role === 'follower')).map((moment) => element('button', {
      type: 'button', class: `row ${moment.kind === 'violation' ? 'bad' : ''}`, 'data-moment': moment.number,
      onclick: () => { lookAt(moment.at, view.to - view.from, 0.5); select('moment', moment.number); },
    }, element('time', {}, formatTime(moment.at, 3)), momentMark(moment), headline(moment)));
    if (!rows.length) rows.push(element('p', { class: 'more' }, 'Nothing but datagrams.'));
    byId('moments').replaceChildren(...rows);
  }
  function markMoments() {
    for (const row of byId('moments').querySelectorAll('[data-moment]')) {
      const at = run.moments[Number(row.dataset.moment)].at;
      row.setAttribute('aria-current', at >= view.from && at <= view.to);
    }
  }
  const LOG_MAX = 300;
  function fillLog() {
    const list = [];
    eachInView((i) => list.push({ at: D.sent[i], what: 'datagram', index: i }));
    const total = list.length;
    for (const moment of run.moments) if (moment.at >= view.from && moment.at <= view.to) list.push({ at: moment.at, what: 'moment', index: moment.number });
    list.sort((a, b) => a.at - b.at);
    const rows = list.slice(0, LOG_MAX).map(({ at, what, index }) => {
      const open = () => select(what, index);
      if (what === 'moment') {
        const moment = run.moments[index];
        return element('button', { type: 'button', class: `row ${moment.kind === 'violation' ? 'bad' : ''}`, onclick: open },
          element('time', {}, formatTime(at)), momentMark(moment), headline(moment));
      }
      const fate = D.fate[index] === DELIVERED ? '' : ` (${run.fates[D.fate[index]]})`;
      return element('button', { type: 'button', class: 'row', 'aria-current': isSelected(what, index), onclick: open },
        element('time', {}, formatTime(at)), swatch(kindColour(D.kind[index])),
        element('span', { class: 'text' }, `${run.processes[D.from[index]]} → ${run.processes[D.to[index]]} ${kindName(D.kind[index])}${fate}`,
          element('small', {}, run.texts[D.text[index]])));
    });
    if (list.length > LOG_MAX) rows.push(element('p', { class: 'more' }, `and ${grouped(list.length - LOG_MAX)} more: zoom in`));
    if (!total && !rows.length) rows.push(element('p', { class: 'more' }, 'Nothing that passes the filters.'));
    byId('log').replaceChildren(...rows);
  }
  function fillRun() {
    byId('run').replaceChildren(
      definition([['seed', run.seed], ['verdict', run.verdict.text], ['virtual time', formatSpan(END)], ['recorded', `${grouped(COUNT)} datagrams, ${grouped(run.operations.length)} operations`]]),
      element('h2', {}, 'Again'), element('pre', {}, run.command), element('h2', {}, 'Drawn from the seed'), element('pre', {}, run.draw.join('\n')),
    );
  }
  const TABS = ['moments', 'log', 'run'];
  function openTab(name) {
    for (const tab of TABS) {
      byId(tab).hidden = tab !== name;
      byId(`tab-${tab}`).setAttribute('aria-selected', tab === name);
    }
    if (name === 'log') fillLog();
  }

  // ---------------------------------------------------------------- filters

  function checkbox(list, index, name, count, colour, changed) {
    const input = element('input', { type: 'checkbox', onchange: () => { list[index] = input.checked; changed(); } });
    input.checked = list[index];
    return element('label', { class: `check ${count ? '' : 'none'}`, title: 'Double-click: only this', ondblclick: (event) => {
      event.preventDefault();
      list.forEach((_, at) => { list[at] = at === index; });
      changed();
      fillFilters();
    } }, input, colour, element('span', { class: 'label' }, name), element('span', { class: 'count' }, grouped(count)));
  }
  function lineSwatch(colour) {
    return element('span', { class: 'swatch', style: `background:linear-gradient(${colour},${colour}) center/100% 3px no-repeat` });
  }
  function fateSwatch(fate) {
    const box = element('canvas', { width: 32, height: 24, style: 'width:16px;height:12px' });
    const to = box.getContext('2d');
    to.scale(2, 2);
    if (fate === 'delivered') {
      to.strokeStyle = to.fillStyle = look.soft;
      to.beginPath(); to.moveTo(0, 6); to.lineTo(10, 6); to.stroke();
      to.beginPath(); to.moveTo(15, 6); to.lineTo(8, 2.5); to.lineTo(8, 9.5); to.fill();
    } else if (fate === 'under way') {
      to.strokeStyle = look.soft;
      to.setLineDash([2, 2]);
      to.beginPath(); to.moveTo(0, 6); to.lineTo(16, 6); to.stroke();
    } else {
      mark(fate, 8, 6, 3.5, 0, 6, to);
    }
    return box;
  }
  function fillFilters() {
    const counts = run.kinds.map(() => 0);
    const fateCounts = run.fates.map(() => 0);
    for (let i = 0; i < COUNT; i += 1) {
      if (D.from[i] === D.to[i] && !wanted.self) continue;
      counts[D.kind[i]] += 1;
      fateCounts[D.fate[i]] += 1;
    }
    const known = new Set(FAMILIES.flatMap(([, names]) => names));
    const families = [...FAMILIES, ['Other', run.kinds.filter((name) => !known.has(name))]];
    const parts = [];
    for (const [family, names] of families) {
      const there = names.filter((name) => run.kinds.includes(name));
      if (!there.length) continue;
      parts.push(element('div', { class: 'family' }, family));
      for (const name of there) {
        const kind = run.kinds.indexOf(name);
        parts.push(checkbox(wanted.kinds, kind, kindName(kind), counts[kind], lineSwatch(kindColour(kind)), filtersChanged));
      }
    }
    byId('kinds').replaceChildren(...parts);
    const itself = element('input', { type: 'checkbox', onchange: () => { wanted.self = itself.checked; fillFilters(); filtersChanged(); } });
    itself.checked = wanted.self;
    byId('fates').replaceChildren(
      ...run.fates.map((name, fate) => checkbox(wanted.fates, fate, name, fateCounts[fate], fateSwatch(name), filtersChanged)),
      element('label', { class: 'check', title: 'Multicasts come back to their sender too' }, itself, element('span', { class: 'label' }, 'also to itself')),
    );
    for (const [id, key, any] of [['from', 'from', 'anybody'], ['to', 'to', 'anybody']]) {
      byId(id).replaceChildren(element('option', { value: -1 }, any), ...run.processes.map((name, index) => element('option', { value: index }, name)));
      byId(id).value = wanted[key];
    }
    byId('processes').replaceChildren(...processes.map((process) => element('button', {
      type: 'button', 'aria-pressed': wanted.processes[process.index], title: headTip(process),
      onclick: () => { wanted.processes[process.index] = !wanted.processes[process.index]; fillFilters(); filtersChanged(); },
    }, process.name)));
    byId('text').value = wanted.text;
  }
  function filtersChanged() {
    applyFilters();
    redraw();
  }

  // ---------------------------------------------------------------- the view, and the address that names it

  const SPAN_MIN = 200;
  function setView(from, to) {
    const span = Math.min(Math.max(to - from, SPAN_MIN), END * 1.2);
    const middle = (from + to) / 2;
    const first = Math.max(-span * 0.5, Math.min(middle - span / 2, END - span * 0.5));
    view.from = first;
    view.to = first + span;
    redraw();
  }
  // A range that somebody wrote, if it is one; what is outside the run is not shown.
  function show(from, to) {
    const given = typeof from === 'number' && typeof to === 'number' && to > from && from < END;
    if (given) setView(from, Math.min(to, Math.max(END * 1.05, from + SPAN_MIN)));
    return given;
  }
  function lookAt(time, span, share) {
    setView(time - span * share, time + span * (1 - share));
  }
  function zoom(factor, time = (view.from + view.to) / 2) {
    if ((view.to - view.from) * factor > END * 1.1) setView(-END * 0.02, END * 1.03); else setView(time - (time - view.from) * factor, time + (view.to - time) * factor);
  }
  const pan = (share) => setView(view.from + (view.to - view.from) * share, view.to + (view.to - view.from) * share);

  // As much as can be told apart before what matters.
  function goToFocus() {
    let [index, left] = [firstAtLeast(D.sent, focus + 1) - 1, 60];
    while (index > 0 && left > 0) {
      if (shown[index]) left -= 1;
      index -= 1;
    }
    const span = Math.max(focus - (COUNT ? D.sent[Math.max(index, 0)] : 0), usualDelay * 4, SPAN_MIN);
    lookAt(focus, span / 0.85, 0.85);
    const moment = run.violation ? run.violation.moment : null;
    if (moment !== null) select('moment', moment);
  }

  const names = (list, flags) => list.filter((_, index) => flags[index]).join(',');
  let lastAddress = '';
  function writeAddress() {
    const parts = [`t=${(view.from / 1e6).toFixed(6)}ms..${(view.to / 1e6).toFixed(6)}ms`];
    if (!wanted.kinds.every(Boolean)) parts.push(`kind=${names(run.kinds, wanted.kinds)}`);
    if (!wanted.fates.every(Boolean)) parts.push(`fate=${encodeURIComponent(names(run.fates, wanted.fates))}`);
    if (!wanted.processes.every(Boolean)) parts.push(`process=${names(run.processes, wanted.processes)}`);
    if (wanted.from >= 0) parts.push(`from=${run.processes[wanted.from]}`);
    if (wanted.to >= 0) parts.push(`to=${run.processes[wanted.to]}`);
    if (wanted.self) parts.push('self=1');
    if (wanted.text) parts.push(`text=${encodeURIComponent(wanted.text)}`);
    if (selected && selected.what === 'datagram') parts.push(`select=${D.id[selected.index]}`);
    lastAddress = `#${parts.join('&')}`;
    try { history.replaceState(null, '', lastAddress); } catch { /* Some browsers refuse this for pages from disk. */ }
  }
  function readAddress() {
    const given = new Map(location.hash.slice(1).split('&').filter(Boolean).map((part) => {
      const [key, ...value] = part.split('=');
      let text = value.join('=');
      try { text = decodeURIComponent(text); } catch { /* As it stands. */ }
      return [key, text];
    }));
    const flags = (key, list) => {
      const chosen = given.has(key) ? new Set(given.get(key).split(',')) : null;
      return list.map((name) => chosen === null || chosen.has(name));
    };
    wanted.kinds = flags('kind', run.kinds);
    wanted.fates = flags('fate', run.fates);
    wanted.processes = flags('process', run.processes);
    wanted.from = run.processes.indexOf(given.get('from'));
    wanted.to = run.processes.indexOf(given.get('to'));
    wanted.self = given.get('self') === '1';
    wanted.text = given.get('text') || '';
    applyFilters();
    fillFilters();
    const [from, to] = (given.get('t') || '').split('..').map(parseTime);
    if (!show(from, to)) goToFocus();
    const index = given.has('select') ? D.id.indexOf(Number(given.get('select'))) : -1;
    if (index >= 0) select('datagram', index, true);
  }

  // ---------------------------------------------------------------- hands

  function nearest(x, y) {
    if (y < HEAD || x > width - MAP) return hits.findLast((hit) => inside(hit, x, y)) || null;
    const bar = hits.findLast((hit) => inside(hit, x, y));
    if (bar) return bar;
    let [best, distance] = [null, 7];
    for (const [i, x1, y1, x2, y2] of drawnLines) {
      if (y < Math.min(y1, y2) - 7 || y > Math.max(y1, y2) + 7) continue;
      const [dx, dy] = [x2 - x1, y2 - y1];
      const along = Math.max(0, Math.min(1, ((x - x1) * dx + (y - y1) * dy) / (dx * dx + dy * dy || 1)));
      const far = Math.hypot(x - x1 - along * dx, y - y1 - along * dy);
      if (far < distance) [best, distance] = [i, far];
    }
    return best === null ? null : { what: 'datagram', index: best, tip: datagramTip(best) };
  }
  const inside = (hit, x, y) => x >= hit.x && x <= hit.x + hit.w && y >= hit.y && y <= hit.y + hit.h;
  function datagramTip(i) {
    const fate = D.fate[i] === DELIVERED ? `after ${formatSpan(D.at[i] - D.sent[i])}` : run.fates[D.fate[i]];
    return `${run.processes[D.from[i]]} → ${run.processes[D.to[i]]}  ${kindName(D.kind[i])}, ${fate}\n${run.texts[D.text[i]]}`;
  }
  function showTip(spot, x, y) {
    const tip = byId('tip');
    tip.hidden = !spot || !spot.tip;
    if (tip.hidden) return;
    tip.textContent = spot.tip;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, width - box.width - 8))}px`;
    tip.style.top = `${y + 18 + box.height > height ? y - box.height - 10 : y + 18}px`;
  }

  let drag = null;
  const place = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    const [x, y] = place(event);
    drag = { x, y, from: view.from, to: view.to, scroll: view.scroll, moved: false, onMap: x > width - MAP && y > HEAD };
    if (drag.onMap) lookAt(((y - HEAD) / (height - HEAD)) * END, view.to - view.from, 0.5);
  });
  canvas.addEventListener('pointermove', (event) => {
    const [x, y] = place(event);
    if (drag && drag.onMap) {
      lookAt(((y - HEAD) / (height - HEAD)) * END, view.to - view.from, 0.5);
    } else if (drag) {
      if (!drag.moved && Math.hypot(x - drag.x, y - drag.y) <= 4) return;
      if (!drag.moved) canvas.setPointerCapture(event.pointerId);
      drag.moved = true;
      canvas.classList.add('grabbing');
      view.scroll = drag.scroll - (x - drag.x);
      const moved = ((y - drag.y) / (height - HEAD)) * (drag.to - drag.from);
      setView(drag.from - moved, drag.to - moved);
    } else {
      const spot = nearest(x, y);
      const before = hovered && hovered.index;
      hovered = spot && spot.what === 'datagram' ? spot : null;
      canvas.classList.toggle('pointing', Boolean(spot && spot.what !== 'process'));
      showTip(spot, x, y);
      if (before !== (hovered && hovered.index)) redraw();
    }
  });
  canvas.addEventListener('pointerup', (event) => {
    const [x, y] = place(event);
    const click = drag && !drag.moved && !drag.onMap;
    drag = null;
    canvas.classList.remove('grabbing');
    if (!click) return;
    const spot = nearest(x, y);
    if (!spot) select(null); else if (spot.what !== 'process') select(spot.what, spot.index);
  });
  canvas.addEventListener('pointerleave', () => { hovered = null; showTip(null); redraw(); });
  canvas.addEventListener('dblclick', (event) => zoom(0.4, timeOf(place(event)[1])));
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 20 : 1;
    if (event.shiftKey) {
      const moved = ((event.deltaY || event.deltaX) * unit / (height - HEAD)) * (view.to - view.from);
      setView(view.from + moved, view.to + moved);
    } else {
      if (event.deltaX) view.scroll += event.deltaX * unit;
      zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY * unit * 0.0018))), timeOf(place(event)[1]));
    }
    showTip(null);
  }, { passive: false });

  // The next datagram or event after what is selected.
  function step(direction) {
    const list = [];
    eachInView((i) => list.push(i));
    if (!list.length) return;
    const at = selected && selected.what === 'datagram' ? list.indexOf(selected.index) : -1;
    const next = at < 0 ? (direction > 0 ? 0 : list.length - 1) : at + direction;
    if (next >= 0 && next < list.length) select('datagram', list[next]); else pan(0.5 * direction);
  }
  const KEYS = [
    [['+', '='], '+', 'see it larger', () => zoom(0.6)],
    [['-'], '−', 'see more', () => zoom(1 / 0.6)],
    [['0'], '0', 'the whole run', () => setView(0, END)],
    [['ArrowDown'], '↓', 'later', () => pan(0.15)],
    [['ArrowUp'], '↑', 'earlier', () => pan(-0.15)],
    [['PageDown', ' '], 'Page ↓', 'much later', () => pan(0.85)],
    [['PageUp'], 'Page ↑', 'much earlier', () => pan(-0.85)],
    [['ArrowRight'], '→', 'columns to the right', () => { view.scroll += 60; redraw(); }],
    [['ArrowLeft'], '←', 'columns to the left', () => { view.scroll -= 60; redraw(); }],
    [['Home'], 'Home', 'the beginning', () => setView(0, view.to - view.from)],
    [['End'], 'End', 'the end', () => lookAt(END, view.to - view.from, 0.95)],
    [['v'], 'v', 'where it went wrong, or the end', goToFocus],
    [['n', 'j'], 'n', 'next datagram', () => step(1)],
    [['p', 'k'], 'p', 'datagram before', () => step(-1)],
    [['/'], '/', 'search', () => byId('text').focus()],
    [['Escape'], 'Esc', 'nothing selected', () => select(null)],
    [['?'], '?', 'this', () => byId('help').showModal()],
  ];
  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId('help').open) return;
    const inField = event.target.matches('input:not([type=checkbox]), select');
    if (inField && event.key === 'Escape') event.target.blur();
    if (inField || (event.target.matches('button, input') && [' ', 'Enter'].includes(event.key))) return;
    const scrolls = event.target.closest('aside') && /^(Arrow|Page|Home|End)/.test(event.key);
    const entry = scrolls ? null : KEYS.find(([keys]) => keys.includes(event.key));
    if (!entry) return;
    event.preventDefault();
    entry[3]();
  });

  function fillHelp() {
    byId('keys').replaceChildren(...KEYS.flatMap(([, key, text]) => [element('dt', {}, key), element('dd', {}, text)]),
      element('dt', {}, 'wheel'), element('dd', {}, 'larger and smaller; with shift: later and earlier'),
      element('dt', {}, 'drag'), element('dd', {}, 'moves the diagram'));
    const bar = (draws) => {
      const box = element('canvas', { width: 60, height: 32, style: 'width:30px;height:16px' });
      const to = box.getContext('2d');
      to.scale(2, 2);
      draws(to);
      return box;
    };
    const filled = (colour) => bar((to) => { to.fillStyle = colour; to.fillRect(7, 0, 16, 16); });
    const hatched = (colour) => bar((to) => {
      to.strokeStyle = colour;
      to.lineWidth = 2;
      to.strokeRect(7, 0, 16, 16);
      for (let at = -16; at < 30; at += 5) { to.beginPath(); to.moveTo(7 + at, 16); to.lineTo(23 + at, 0); to.save(); to.stroke(); to.restore(); }
      to.clearRect(0, 0, 6, 16); to.clearRect(24, 0, 6, 16);
    });
    const fate = (name) => bar((to) => { mark(name, 15, 8, 5, 0, 8, to); });
    const rows = [
      [filled(termColour(1)), 'a leader; every term has its own colour'],
      [hatched(termColour(2)), 'a candidate'],
      [hatched(look.pause), 'a paused process: what arrives waits in its sockets'],
      [bar((to) => { to.fillStyle = look.crash; to.fillRect(7, 0, 16, 16); mark('lost', 15, 8, 6, 0, 8, to); }), 'a process that was killed, or stopped by itself'],
      [fate('lost'), 'lost by chance'],
      [fate('cut off'), 'cut off: lost by a partition or a rule'],
      [fate('unheard'), 'arrived where no process runs'],
      [fate('overflowed'), 'found a socket or a queue full'],
      [fate('corrupted'), 'a bit was flipped on the way'],
      [bar((to) => { to.strokeStyle = look.soft; to.setLineDash([5, 3]); to.lineWidth = 1.5; to.beginPath(); to.moveTo(0, 8); to.lineTo(30, 8); to.stroke(); }), 'a copy that the network made'],
      [filled(outcomeColour('ok')), 'an operation, from its invocation to its answer'],
      [filled(outcomeColour('unknown')), 'an operation whose outcome its client does not know'],
      [filled(outcomeColour('other')), 'an operation that was refused, or failed'],
    ];
    byId('legend').replaceChildren(...rows.flatMap(([picture, text]) => [picture, element('span', {}, text)]));
  }

  // ---------------------------------------------------------------- begin

  function resize() {
    const box = byId('diagram').getBoundingClientRect();
    ratio = window.devicePixelRatio || 1;
    [width, height] = [Math.max(300, Math.floor(box.width)), Math.max(200, Math.floor(box.height))];
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    draw();
  }
  function fillAll() {
    fillFilters();
    fillMoments();
    fillRun();
    fillHelp();
    fillDetails();
  }
  byId('title').textContent = run.title;
  byId('what').textContent = run.what;
  byId('what').title = run.verdict.text;
  byId('verdict').textContent = run.verdict.name;
  byId('verdict').classList.add(run.verdict.name);
  byId('go-focus').textContent = run.violation ? 'Where it went wrong' : 'The end';
  const gone = [[run.leftOut.datagrams, 'datagrams'], [run.leftOut.moments, 'events'], [run.leftOut.operations, 'operations']].filter(([count]) => count > 0);
  byId('left-out').textContent = gone.length ? `Older ones are left out: ${gone.map(([count, name]) => `${grouped(count)} ${name}`).join(', ')}` : '';
  byId('go-focus').addEventListener('click', goToFocus);
  byId('zoom-in').addEventListener('click', () => zoom(0.6));
  byId('zoom-out').addEventListener('click', () => zoom(1 / 0.6));
  byId('zoom-all').addEventListener('click', () => setView(0, END));
  byId('help-open').addEventListener('click', () => byId('help').showModal());
  byId('kinds-all').addEventListener('click', () => { wanted.kinds.fill(true); fillFilters(); filtersChanged(); });
  byId('kinds-none').addEventListener('click', () => { wanted.kinds.fill(false); fillFilters(); filtersChanged(); });
  byId('text').addEventListener('input', (event) => { wanted.text = event.target.value; filtersChanged(); });
  for (const key of ['from', 'to']) byId(key).addEventListener('change', (event) => { wanted[key] = Number(event.target.value); filtersChanged(); });
  for (const id of ['time-from', 'time-to']) {
    byId(id).addEventListener('change', () => {
      const [from, to] = [parseTime(byId('time-from').value), parseTime(byId('time-to').value)];
      show(from, to);
      byId(id).blur();
    });
  }
  for (const tab of TABS) byId(`tab-${tab}`).addEventListener('click', () => openTab(tab));
  dark.addEventListener('change', () => { look = dark.matches ? PAPER.dark : PAPER.light; fillAll(); redraw(); });
  window.addEventListener('hashchange', () => { if (location.hash !== lastAddress) readAddress(); });
  new ResizeObserver(resize).observe(byId('diagram'));

  resize();
  readAddress();
  fillAll();
  openTab('moments');
  draw();

  // For scripts and tests: what is drawn, and the same ways to change it that the keys and buttons have.
  window.hovercraft = {
    run, wanted, view, setView, zoom, select, goToFocus,
    get drawn() { draw(); return drawn; },
    filter(changes) { Object.assign(wanted, changes); applyFilters(); fillFilters(); draw(); return drawn; },
    // Where on the canvas a process's bar is at a time.
    placeOf(process, time) {
      draw();
      return { x: columns[run.processes.indexOf(process)].x - view.scroll - LANE + 2, y: yOf(time) };
    },
    // The colour there, as [red, green, blue].
    colourAt(process, time) {
      const { x, y } = this.placeOf(process, time);
      return Array.from(pen.getImageData(Math.round(x * ratio), Math.round(y * ratio), 1, 1).data.slice(0, 3));
    },
  };
})();
