"use strict"
const form = document.getElementById("speak")
const button = form.querySelector("button")
const stop = document.getElementById("stop")
const said = document.getElementById("said")
const trouble = document.getElementById("trouble")
const NUMBERS = ["sdp_ratio", "noise_scale", "noise_scale_w", "length_scale", "seed"]

for (const slider of form.querySelectorAll("input[type=range]")) {
  const output = slider.parentElement.querySelector("output")
  const show = () => { output.value = slider.value }
  slider.addEventListener("input", show)
  show()
}

// what is to be spoken, as the server takes it
const wanted = () => {
  const given = Object.fromEntries(new FormData(form))
  for (const name of NUMBERS) given[name] = Number(given[name])
  if (!given.speaker) delete given.speaker
  return JSON.stringify(given)
}

// sentences play one after the other, each as soon as it is there
let queue = []
let current = null
const next = () => {
  const player = queue.shift()
  current = player ?? null
  player?.play().catch(() => after(player))
}
const after = (player) => { if (player === current) next() }
const silence = () => {
  queue = []
  current = null
  for (const player of document.querySelectorAll("audio")) player.pause()
}
const add = (sentence) => {
  const card = document.createElement("article")
  const words = document.createElement("p")
  words.className = sentence.error ? "worse" : "said"
  words.textContent = sentence.error ? `${sentence.text}: ${sentence.error}` : sentence.text
  card.append(words)
  if (!sentence.error) {
    const bytes = Uint8Array.from(atob(sentence.wav), (char) => char.charCodeAt(0))
    const player = document.createElement("audio")
    player.controls = true
    player.src = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }))
    player.addEventListener("ended", () => after(player))
    const note = document.createElement("p")
    note.className = "note"
    note.textContent = `step ${sentence.step}, ${sentence.seconds.toFixed(2)} s`
    card.append(player, note)
    queue.push(player)
    if (!current) next()
  }
  said.append(card)
}

const told = async (reply) => {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ""
  for (;;) {
    const { value, done } = await reader.read()
    if (done) return
    const lines = (rest + value).split("\n")
    rest = lines.pop()
    for (const line of lines) add(JSON.parse(line))
  }
}

let asked = null
form.addEventListener("submit", async (event) => {
  event.preventDefault()
  button.disabled = true
  stop.disabled = false
  trouble.textContent = ""
  silence()
  for (const player of said.querySelectorAll("audio")) URL.revokeObjectURL(player.src)
  said.replaceChildren()
  asked = new AbortController()
  try {
    const headers = { "Content-Type": "application/json" }
    const reply = await fetch("speak", { method: "POST", headers, body: wanted(), signal: asked.signal })
    if (reply.ok) await told(reply)
    else trouble.textContent = (await reply.json()).error
  } catch (error) {
    if (error.name !== "AbortError") trouble.textContent = `no answer: ${error.message}`
  } finally {
    button.disabled = false
    stop.disabled = true
  }
})
stop.addEventListener("click", () => {
  asked?.abort()
  silence()
})
