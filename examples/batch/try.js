// Tries batch.js in Node: node try.js http://127.0.0.1:8080
//
// Prints one JSON object on a line for each call. `request` below is what `wx.request` is in a mini-program.

'use strict'

const http = require('http')
const { createBatcher } = require('./batch.js')

const base = process.argv[2] || 'http://127.0.0.1:8080'
const agent = new http.Agent({ keepAlive: true })

function request (asked) {
  const body = asked.data === undefined ? undefined : JSON.stringify(asked.data)
  const header = Object.assign({ 'content-type': 'application/json' }, asked.header)
  const sent = http.request(asked.url, { method: asked.method, headers: header, agent, timeout: asked.timeout })
  sent.on('response', answer => {
    const pieces = []
    answer.on('data', piece => pieces.push(piece))
    answer.on('error', asked.fail)
    answer.on('end', () => {
      let data = Buffer.concat(pieces).toString()
      try { data = JSON.parse(data) } catch (_) {}
      asked.success({ statusCode: answer.statusCode, header: answer.headers, data })
    })
  })
  sent.on('timeout', () => sent.destroy(new Error('timeout')))
  sent.on('error', asked.fail)
  sent.end(body)
}

const batcher = createBatcher({ request, base, header: () => ({ 'x-page': 'home' }) })

function show (name, calls) {
  return Promise.all(calls).then(answers => {
    answers.forEach(({ statusCode, data }) => console.log(JSON.stringify({ name, statusCode, data })))
  })
}

async function main () {
  await show('together', [
    batcher.call({ path: '/open/1' }),
    batcher.call({ path: '/open/2?x=y' }),
    batcher.call({ path: '/nowhere' })
  ])
  await show('referring', [
    batcher.call({ id: 'first', path: '/open/first' }),
    batcher.call({ path: '/open/{first#/route}' })
  ])
  await show('alone', [batcher.call({ path: '/open/alone' })])
  await show('write', [batcher.call({ method: 'post', path: '/writes/1', data: { a: 1 } })])
  await show('merged write', [
    batcher.call({ method: 'POST', path: '/writes/2', data: { a: 2 }, merge: true }),
    batcher.call({ path: '/open/now', now: true })
  ])
  await show('many', Array.from({ length: 25 }, (_, n) => batcher.call({ path: '/open/many' + n })))
  agent.destroy()
}

main().catch(error => {
  console.error(error)
  process.exit(1)
})
