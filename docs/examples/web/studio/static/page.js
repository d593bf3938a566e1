// Two files go to the server, its events come back, and at the end there is a video.

const $ = (selector) => document.querySelector(selector);

const form = $("#form");
const { image, audio } = form.elements;
const AGAIN = 3000; // milliseconds, as EventSource waits
let recorder = null;

// --- choosing, dropping, recording -------------------------------------------------------------

function show(input) {
  const file = input.files[0];
  const card = input.closest(".drop");
  const preview = card.querySelector(".shown");
  URL.revokeObjectURL(preview.src);
  preview.hidden = !file;
  if (file) preview.src = URL.createObjectURL(file);
  card.classList.toggle("filled", Boolean(file));
  card.querySelector(".name").textContent = file?.name ?? "";
  allow();
}

function allow() {
  $("#make").disabled = recorder !== null || !(image.files.length && audio.files.length);
}

function put(input, file) {
  const files = new DataTransfer();
  files.items.add(file);
  input.files = files.files;
  show(input);
}

// What misses a card must not make the browser leave the page for the file.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());

for (const card of document.querySelectorAll(".drop")) {
  const input = form.elements[card.dataset.input];
  input.addEventListener("change", () => show(input));
  card.addEventListener("dragover", (event) => {
    event.preventDefault();
    card.classList.add("over");
  });
  card.addEventListener("dragleave", () => card.classList.remove("over"));
  card.addEventListener("drop", (event) => {
    event.preventDefault();
    card.classList.remove("over");
    if (event.dataTransfer.files.length) put(input, event.dataTransfer.files[0]);
  });
}

async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const began = Date.now();
  const parts = [];
  recorder = new MediaRecorder(stream);
  recorder.ondataavailable = (event) => parts.push(event.data);
  const clock = setInterval(() => {
    label(`Stop (${Math.round((Date.now() - began) / 1000)} s)`);
  }, 250);
  recorder.onstop = () => {
    clearInterval(clock);
    stream.getTracks().forEach((track) => track.stop());
    const type = recorder.mimeType;
    recorder = null;
    label("Record again");
    put(audio, new File(parts, "Your recording", { type }));
  };
  recorder.start();
  label("Stop");
}

function label(text) {
  $("#record .text").textContent = text;
  $("#record").classList.toggle("recording", recorder !== null);
  allow();
}

$("#record").hidden = !navigator.mediaDevices; // browsers offer it on https and localhost alone
$("#record").addEventListener("click", async () => {
  if (recorder) return recorder.stop();
  $("#record").disabled = true; // while the browser asks for leave
  try {
    await record();
  } catch (error) {
    complain("The microphone cannot be used.", error.message);
  } finally {
    $("#record").disabled = false;
  }
});

$("#colour").addEventListener("input", () => {
  form.elements.background.value = "colour";
});

// --- the request ---------------------------------------------------------------------------------

function fields() {
  const data = new FormData(form);
  if (data.get("background") === "colour") data.set("background", $("#colour").value);
  data.set("apply_smoothing", $("#smoothing").checked);
  return data;
}

// What is folded away cannot be seen, nor the browser's word on what is wrong with it.
form.addEventListener("invalid", () => { form.querySelector("details").open = true; }, true);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  begin("Sending your files");
  try {
    const answer = await fetch("/api/pipeline/generate", {
      method: "POST",
      headers: { Prefer: "respond-async" },
      body: fields(),
    });
    const told = await answer.json();
    if (!answer.ok) return complain(told.detail, told.hint);
    history.replaceState(null, "", `#${told.task_id}`); // a reload finds the task again
    watch(told.task_id);
  } catch {
    complain("The server did not answer.", "Are the files too large, or is the connection down?");
  }
});

// --- the events ----------------------------------------------------------------------------------

function watch(task) {
  const events = new EventSource(`/api/pipeline/progress/${encodeURIComponent(task)}/sse`);
  const on = (name, tell) => {
    events.addEventListener(name, (event) => {
      if (event.data === undefined) return; // the connection's own "error": it tries again
      events.close();
      tell(JSON.parse(event.data));
    });
  };
  events.onmessage = (event) => advance(JSON.parse(event.data));
  events.addEventListener("preview", (event) => preview(JSON.parse(event.data)));
  events.onerror = async () => {
    $("#message").textContent = "The connection is lost. Trying again.";
    if (events.readyState !== EventSource.CLOSED) return; // by itself
    // Not after an answer that is none, be it of this server or of a proxy before it.
    if (await unknown(task)) {
      complain("This task is not known here.", "Its address may be wrong, or its time is over.");
    } else {
      setTimeout(watch, AGAIN, task);
    }
  };
  on("complete", (told) => finish(task, told));
  on("error", (told) => complain(told.error, told.hint));
  on("cancelled", () => complain("The task was cancelled."));
  on("deferred", (told) => {
    const hint = "The server goes on by itself: come back to this address later.";
    complain(told.error, hint, "That takes longer");
  });
}

async function unknown(task) {
  try {
    const { status } = await fetch(`/api/pipeline/status/${encodeURIComponent(task)}`);
    return status >= 400 && status < 500;
  } catch {
    return false;
  }
}

function begin(message) {
  for (const part of ["#trouble", "#preview", "#degraded"]) $(part).hidden = true;
  form.hidden = true;
  $("#work").hidden = false;
  advance({ progress_percent: 0, message });
}

function advance({ progress_percent: percent, message, event_type: kind }) {
  $("#bar").value = percent;
  if (kind === "degraded") {
    $("#degraded").hidden = false;
    $("#degraded").textContent = message;
    return;
  }
  $("#message").textContent = message;
  for (const step of document.querySelectorAll("#steps li")) {
    const { from, to } = step.dataset;
    step.className = percent >= to ? "done" : percent >= from ? "now" : "";
  }
}

function preview({ image: source }) {
  $("#preview").src = source;
  $("#preview").hidden = false;
}

function finish(task, told) {
  advance({ ...told, message: `Made in ${(told.execution_time_ms / 1000).toFixed(1)} seconds` });
  const video = $("#video");
  video.poster = `${told.video_url}/poster`;
  video.src = told.video_url;
  $("#headline").textContent = "Your video";
  $("#download").href = told.video_url;
  $("#download").download = `talkgen-${task.slice(0, 8)}.mp4`;
  for (const part of ["#video", "#download", "#again"]) $(part).hidden = false;
  $("#preview").hidden = true;
}

function complain(what, hint = "", title = "That did not work") {
  $("#trouble h2").textContent = title;
  $("#trouble .what").textContent = what;
  $("#trouble .hint").textContent = hint ?? "";
  $("#trouble").hidden = false;
  $("#work").hidden = true;
  form.hidden = false;
  $("#trouble").scrollIntoView({ block: "nearest" });
}

$("#again").addEventListener("click", () => {
  history.replaceState(null, "", location.pathname);
  location.reload();
});

addEventListener("hashchange", () => location.reload()); // another task's address
for (const input of [image, audio]) show(input); // a reload may have kept them
if (location.hash.length > 1) {
  begin("Looking for your task");
  watch(location.hash.slice(1));
}
