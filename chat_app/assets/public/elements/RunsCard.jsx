// How far runs are, what they write, and what may be done to them. Painted from what the server says; it says so anew
// whenever something changes, and sends what runs are writing beside it (bailiwick.js keeps that).
import { useEffect, useRef, useState } from 'react'
import { Button } from '@/components/ui/button'
import { CheckCircle2, ChevronDown, ChevronRight, CircleAlert, Clock, Loader2 } from 'lucide-react'

function Icon({ card }) {
  if (!card.done && !card.busy) return <Clock size={18} aria-hidden="true" />
  if (!card.done) return <Loader2 className="bw-spin" size={18} aria-hidden="true" />
  const bad = card.segments.some((segment) => segment.tone === 'bad')
  return bad ? <CircleAlert size={18} aria-hidden="true" /> : <CheckCircle2 size={18} aria-hidden="true" />
}

// Announced once, not word by word: whoever listens can read the text when they want to.
function Writing({ run }) {
  const texts = (window.bailiwickWriting ??= new Map())
  const [said, setSaid] = useState(() => texts.get(run.run_id))
  const box = useRef(null)
  useEffect(() => {
    const heard = () => setSaid(texts.get(run.run_id))
    heard()
    window.addEventListener('bailiwick:writing', heard)
    return () => window.removeEventListener('bailiwick:writing', heard)
  }, [run.run_id])
  useEffect(() => {
    if (box.current && document.activeElement !== box.current) box.current.scrollTop = box.current.scrollHeight
  }, [said])
  if (!said || run.state !== 'running') return null
  return (
    <div className="bw-writing">
      <div className="bw-sub" role="status">{run.label} is writing…</div>
      <div className="bw-written" ref={box} tabIndex={0} role="region" aria-busy="true" data-writing={run.run_id}
        aria-label={`What ${run.label} is writing`}>{said.cut ? '… ' : ''}{said.text}</div>
    </div>
  )
}

// Buttons; one that cannot be taken back asks first.
function Acts({ acts, about, perform }) {
  const [busy, setBusy] = useState('')
  const [asking, setAsking] = useState(null)
  const box = useRef(null)
  if (acts.length === 0) return null

  // The button that was pressed may be gone afterwards: whoever uses a keyboard stays where it was.
  async function press(one) {
    setAsking(null)
    setBusy(one.act)
    box.current.focus()
    try {
      await perform(one.act)
    } finally {
      setBusy('')
    }
  }

  function keep() {
    setAsking(null)
    box.current.focus()
  }

  return (
    <div className="bw-acts" role="group" tabIndex={-1} ref={box} aria-label={asking ? asking.sure : about}>
      {asking && <span className="bw-grow">{asking.sure}</span>}
      {asking && <Button size="sm" variant="destructive" onClick={() => press(asking)}>Yes, {asking.act}</Button>}
      {asking && <Button size="sm" variant="outline" autoFocus onClick={keep}>No</Button>}
      {!asking && acts.map((one) => (
        <Button key={one.act} size="sm" variant="outline" disabled={busy !== ''}
          aria-label={`${one.label}: ${about}`} onClick={() => (one.sure ? setAsking(one) : press(one))}>
          {busy === one.act && <Loader2 className="bw-spin" size={14} aria-hidden="true" />}
          {one.label}
        </Button>
      ))}
    </div>
  )
}

function AgainFrom({ run, perform }) {
  const [step, setStep] = useState(run.again_from[0].step)
  const id = `from-${run.run_id}`
  return (
    <div className="bw-acts">
      <label htmlFor={id} className="bw-sub">or again from step</label>
      <select id={id} className="bw-input" value={step} onChange={(event) => setStep(Number(event.target.value))}>
        {run.again_from.map((one) => <option key={one.step} value={one.step}>{one.step}. {one.name}</option>)}
      </select>
      <Button size="sm" variant="outline" onClick={() => perform('retry', step)}>Start</Button>
    </div>
  )
}

function Opened({ run, call }) {
  const perform = (act, from_step) => call({ name: 'act_on_runs', payload: { act, run_id: run.run_id, from_step } })
  return (
    <div className="bw-opened">
      {run.steps.length > 0 && (
        <ol className="bw-runs bw-steps" aria-label={`Steps of ${run.label}`}>
          {run.steps.map((step) => (
            <li key={step.step}>
              <span className={`bw-chip bw-${step.tone}`}>{step.word}</span>
              <span className="bw-name">{step.name}</span>
              <span className="bw-note">{step.note}</span>
            </li>
          ))}
        </ol>
      )}
      {run.result.length > 0 && (
        <dl className="bw-facts" aria-label={`Result of ${run.label}`}>
          {run.result.map((fact) => (
            <div key={fact.label} className={fact.wide ? 'bw-wide' : undefined}><dt>{fact.label}</dt><dd>{fact.value}</dd></div>
          ))}
        </dl>
      )}
      <Acts acts={run.acts} about={run.label} perform={perform} />
      {run.again_from.length > 0 && <AgainFrom run={run} perform={perform} />}
    </div>
  )
}

function Run({ run, alone, call }) {
  const [busy, setBusy] = useState(false)
  const Chevron = busy ? Loader2 : run.opened ? ChevronDown : ChevronRight

  async function toggle() {
    setBusy(true)
    try {
      await call({ name: 'open_run', payload: { run_id: run.run_id, opened: !run.opened } })
    } finally {
      setBusy(false)
    }
  }

  return (
    <li data-run={run.run_id} data-state={run.state}>
      {!alone && (
        <div className="bw-run" title={run.run_id}>
          <span className={`bw-chip bw-${run.tone}`}>{run.word}</span>
          <button type="button" className="bw-name bw-open" aria-expanded={run.opened} onClick={toggle}>
            <Chevron className={busy ? 'bw-spin' : undefined} size={14} aria-hidden="true" /> {run.label}
          </button>
          <span className="bw-note">{run.note}</span>
        </div>
      )}
      <Writing run={run} />
      {run.opened && <Opened run={run} call={call} />}
    </li>
  )
}

function Counts({ card, share }) {
  return (
    <>
      <div className="bw-bar" role="progressbar" aria-valuemin={0} aria-valuemax={100} aria-valuenow={share}
        aria-label={card.headline}>
        {card.segments.map((segment) => (
          <span key={segment.key} className={`bw-part bw-${segment.tone}`} title={`${segment.label}: ${segment.count}`}
            style={{ flexGrow: segment.count }} />
        ))}
      </div>
      <ul className="bw-counts">
        {card.segments.map((segment) => (
          <li key={segment.key} data-count={segment.key}>
            <span className={`bw-dot bw-${segment.tone}`} />
            <b>{segment.count.toLocaleString('en-US')}</b> {segment.label.toLowerCase()}
          </li>
        ))}
      </ul>
    </>
  )
}

// The same function for as long as the page is open: one made anew at each repaint would be another component, and
// take what is asked, open or in focus with it.
const RunsCard = ((window.bailiwickCards ??= {}).RunsCard ??= function RunsCard({ card, call }) {
  const share = card.total ? Math.round((100 * card.finished) / card.total) : 0
  const alone = Boolean(card.run_id)
  const list = (
    <ol className="bw-runs">
      {card.runs.map((run) => <Run key={run.run_id} run={run} alone={alone} call={call} />)}
    </ol>
  )
  return (
    <section className="bw-card" data-batch={card.batch_id ?? card.run_id} data-done={card.done} aria-label={alone ? card.headline : `Runs of ${card.title}`}>
      <header className="bw-head" title={card.run_id}>
        <Icon card={card} />
        <div className="bw-grow">
          <div className="bw-title">{card.headline}</div>
          <div className="bw-sub">{[card.title, card.cost].filter(Boolean).join(' · ')}</div>
        </div>
        {alone ? <span className={`bw-chip bw-${card.runs[0].tone}`}>{card.runs[0].word}</span>
          : <div className="bw-share">{share}%</div>}
      </header>
      {!alone && <Counts card={card} share={share} />}
      {!alone && card.waits.length > 0 && (
        <ul className="bw-waits">
          {card.waits.map((text) => (
            <li key={text}><Clock size={14} aria-hidden="true" /> <span>{text}</span></li>
          ))}
        </ul>
      )}
      {alone && list}
      {!alone && card.runs.length > 0 && (
        <details className="bw-more" open={!card.done}>
          <summary>{card.done ? 'Some of them' : 'At work and in trouble first'}</summary>
          {list}
        </details>
      )}
      <Acts acts={card.acts} about={card.title}
        perform={(act) => call({ name: 'act_on_runs', payload: { act, batch_id: card.batch_id } })} />
    </section>
  )
})

export default <RunsCard card={props} call={callAction} />
