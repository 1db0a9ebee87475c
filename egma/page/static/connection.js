"use strict";
// The line to the server, beneath Gradio, whose page is dead once a request of it broke off. What the page asks is asked
// until it is answered. A server that has nothing of this page any more (it was started again, the page slept, others
// took the room) is sent again what made what is shown: the calls for the picture, the report, the recording.
(() => {
  const [PAUSE_MS, OF_A_PROXY] = [1500, [502, 504]]; // its answers where it reaches no server
  const BROKEN = "The connection broke before the answer came. What you typed and chose is still here: try again.";
  const MAKES = { start: "picture", choose_example: "picture", align: "picture", read: "report", gaze: "recording",
    finish_recording: "recording" };
  const ask = window.fetch.bind(window);
  const files = new Map(); // what was uploaded, by the path that the server gave it
  const open = new Map(); // calls that have no answer yet, by their event
  let [made, alive] = [[], null]; // the calls that made what is shown, in their order; the sign of life

  const notice = egma.make("p", { class: "egma-notice", role: "status", hidden: true },
    "The server cannot be reached. What is shown, typed and recorded stays here, and goes on when it answers again.");
  const pause = () => new Promise((done) => setTimeout(done, PAUSE_MS));

  function reached(yes) {
    if (!yes) document.querySelector(".gradio-container")?.append(notice);
    notice.hidden = yes;
  }

  async function answered(...request) {
    for (;;) {
      const answer = await ask(...request).catch((error) => {
        if (error.name === "AbortError") throw error;
      });
      const came = Boolean(answer) && !OF_A_PROXY.includes(answer.status);
      reached(came);
      if (came) return answer;
      await pause();
    }
  }

  async function upload(address, init) {
    const [chosen] = init.body.getAll("files");
    const copy = new File([await chosen.arrayBuffer()], chosen.name, { type: chosen.type }); // whatever becomes of it
    return send(address, init, copy);
  }

  async function send(address, init, file) {
    const body = new FormData();
    body.append("files", file);
    const answer = await answered(address, { ...init, body });
    if (answer.ok) files.set((await answer.clone().json())[0], file);
    return answer;
  }

  async function join(address, init) {
    const { fn_index: number, session_hash: page } = JSON.parse(init.body);
    const kind = MAKES[window.gradio_config.dependencies.find((one) => one.id === number)?.api_name];
    const headers = new Headers(init.headers);
    if (made.length && kind !== "picture") headers.set("x-egma-shown", "yes");
    let answer = await answered(address, { ...init, headers });
    if (answer.status === 409) {
      alive ??= live(address.replace(/queue\/join.*/, `heartbeat/${page}`));
      for (const call of made) await again(call, address, init);
      answer = await answered(address, init);
    }
    if (answer.ok) open.set((await answer.clone().json()).event_id, { kind, body: init.body });
    return answer;
  }

  // A call once more, and its files; nothing waits for what it says.
  async function again(call, address, init) {
    for (const [path, file] of [...files].filter(([one]) => call.body.includes(one))) {
      const answer = await send(address.replace(/queue\/join.*/, "upload"), { method: "POST" }, file);
      if (answer.ok) call.body = call.body.replaceAll(path, (await answer.json())[0]);
    }
    await answered(address, { ...init, body: call.body });
  }

  function settle({ event_id: event, success, output }) {
    const call = open.get(event);
    open.delete(event);
    if (!success || !call?.kind) return;
    const isPicture = call.kind === "picture";
    const stays = isPicture ? [] : made.filter((one) => one.kind !== call.kind);
    made = isPicture && !output.data[0] ? [] : [...stays, call];
    for (const path of files.keys()) if (!made.some((one) => one.body.includes(path))) files.delete(path);
  }

  // The answers as they come. Where the line breaks, each that is missing is told so, and Gradio goes on.
  async function listen(...request) {
    const answer = await answered(...request);
    const [reader, decoder] = [answer.body.getReader(), new TextDecoder()];
    let [rest, closed] = ["", false];

    function understood(message) {
      const told = JSON.parse(message.replace(/^data: /, ""));
      if (told.msg === "process_completed") settle(told);
      closed ||= told.msg === "close_stream";
      return told.msg !== "unexpected_error";
    }

    async function pull(out) {
      const { value, done } = await reader.read().catch(() => ({ done: true }));
      const messages = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = messages.pop();
      if (!done && messages.every(understood)) return out.enqueue(value);
      if (!closed) {
        const failed = [...open.keys()].map((event) =>
          ({ msg: "process_completed", event_id: event, success: false, output: { error: BROKEN, visible: true, duration: 20 } }));
        open.clear();
        const told = [...failed, { msg: "close_stream" }].map((message) => `data: ${JSON.stringify(message)}\n\n`);
        out.enqueue(new TextEncoder().encode(told.join("")));
      }
      out.close();
    }
    return new Response(new ReadableStream({ pull, cancel: () => reader.cancel() }), { headers: answer.headers });
  }

  // A sign of life in place of Gradio's, which ended with the line: a server that hears none forgets the page.
  async function live(address) {
    for (;;) {
      await (await answered(address)).body.pipeTo(new WritableStream()).catch(() => {});
      await pause();
    }
  }

  window.fetch = (input, init) => {
    const { pathname } = new URL(input.url ?? input, document.baseURI);
    if (pathname.endsWith("/queue/join")) return join(String(input), init);
    if (pathname.endsWith("/queue/data")) return listen(input, init);
    if (pathname.endsWith("/gradio_api/upload")) return upload(String(input), init);
    return ask(input, init);
  };
  window.addEventListener("offline", () => reached(false));
  window.addEventListener("online", () => reached(true));
})();
