// Merges the calls that a page makes at about the same time into one request to a gateway's batch endpoint.
//
// It needs nothing else and no build step: it runs as it is in mini-programs, in browsers and in Node. What sends
// a request is handed in and has the shape of `wx.request`, which every mini-program platform offers.
//
//   const { createBatcher } = require('./batch.js')
//   const batcher = createBatcher({
//     request: wx.request,
//     base: 'https://api.example.com',
//     header: () => ({ Authorization: 'Bearer ' + getApp().token })
//   })
//   batcher.call({ path: '/api/users/me' }).then(answer => console.log(answer.statusCode, answer.data))
//
// The rules:
//   - Calls made within `wait` ms (50) of the first go together, `most` (20) of them at most; the 20th sends
//     them at once, and so does `now: true`.
//   - Only GET and HEAD are merged, unless a call says `merge: true`; the gateway refuses others in a batch where
//     their route does not allow it.
//   - A call that is alone when its time comes is sent by itself.
//   - A call may refer to another's answer: `{ id: 'me', path: '/api/users/me' }` and
//     `{ path: '/api/orders?user={me#/data/id}' }`. Both have to be made in the same 50 ms.
//   - `call` gives a promise of what `wx.request` would have given: `statusCode`, `header`, `data`. As there,
//     every status is an answer; only when there is none the promise is rejected.

'use strict'

function createBatcher (options) {
  var request = options.request
  var base = options.base || ''
  var path = options.path || '/batch'
  var wait = options.wait === undefined ? 50 : options.wait
  var most = options.most || 20
  var timeout = options.timeout || 10000
  var waiting = []
  var timer = null
  var count = 0

  function header () {
    return Object.assign({}, typeof options.header === 'function' ? options.header() : options.header)
  }

  function send (method, url, more, data) {
    return new Promise(function (resolve, reject) {
      request({
        url: url,
        method: method,
        header: Object.assign(header(), more),
        data: data,
        timeout: timeout,
        success: resolve,
        fail: reject
      })
    })
  }

  function alone (call) {
    send(call.method, base + call.path, call.header, call.data).then(call.resolve, call.reject)
  }

  function together (calls) {
    var requests = calls.map(function (call) {
      var one = { id: call.id, method: call.method, path: call.path }
      if (call.header) one.headers = call.header
      if (call.data !== undefined) one.body = call.data
      return one
    })
    var sent = send('POST', base + path, { 'content-type': 'application/json' }, { requests: requests })
    sent.then(function (answer) {
      var data = typeof answer.data === 'string' ? parsed(answer.data) : answer.data
      var responses = data && data.responses
      calls.forEach(function (call) {
        var own = responses && responses.find(function (one) { return one.id === call.id })
        // A batch that was refused as a whole (no login, too many calls) is that answer for each of its calls.
        if (!own && answer.statusCode !== 200) return call.resolve(answer)
        if (!own) return call.reject(new Error('the batch has no answer for ' + call.id))
        call.resolve({ statusCode: own.status, header: own.headers || {}, data: own.body })
      })
    }).catch(function (error) {
      calls.forEach(function (call) { call.reject(error) })
    })
  }

  function parsed (text) {
    try { return JSON.parse(text) } catch (_) { return null }
  }

  // Sends what waits.
  function flush () {
    if (timer !== null) clearTimeout(timer)
    timer = null
    var calls = waiting
    waiting = []
    if (calls.length === 1 && !calls[0].named && calls[0].path.indexOf('{') < 0) alone(calls[0])
    else if (calls.length > 0) together(calls)
  }

  // Makes a call: `path`, and perhaps `method`, `header`, `data`, `id`, `merge`, `now`.
  function call (asked) {
    var method = (asked.method || 'GET').toUpperCase()
    var safe = method === 'GET' || method === 'HEAD'
    return new Promise(function (resolve, reject) {
      var made = {
        // Names of the caller's never begin so.
        id: asked.id || '_' + (++count),
        named: Boolean(asked.id),
        method: method,
        path: asked.path,
        header: asked.header,
        data: asked.data,
        resolve: resolve,
        reject: reject
      }
      if (!safe && !asked.merge) return alone(made)
      // A name stands once in a batch.
      if (waiting.some(function (other) { return other.id === made.id })) flush()
      waiting.push(made)
      if (waiting.length >= most || asked.now) flush()
      else if (timer === null) timer = setTimeout(flush, wait)
    })
  }

  return { call: call, flush: flush }
}

module.exports = { createBatcher: createBatcher }
