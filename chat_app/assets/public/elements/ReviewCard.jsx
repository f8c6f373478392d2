// A case for a reviewer. The decision is the server's: the card only sends it and shows what came of it.
import { useEffect, useRef, useState } from 'react'
import { Button } from '@/components/ui/button'
import { Textarea } from '@/components/ui/textarea'
import { CheckCircle2, Clock, Loader2 } from 'lucide-react'

// What somebody is filling in outlives the card: leaving a conversation and coming back paints it anew.
const drafts = (window.bailiwickDrafts ??= new Map())

function start(field) {
  if (field.kind === 'choice') return field.choices.indexOf(field.default)
  return field.default ?? (field.kind === 'boolean' ? false : '')
}

// What is filled in, with the types that the form asks for; what is left empty is not sent.
function answerOf(fields, values) {
  const answer = {}
  for (const { name, kind, choices } of fields) {
    const value = values[name]
    if (kind === 'choice') {
      if (value >= 0) answer[name] = choices[value]
    } else if (kind === 'number' || kind === 'integer') {
      if (value !== '') answer[name] = Number(value)
    } else if (value !== '') answer[name] = value
  }
  return answer
}

function Input({ review, field, value, set, disabled, fault }) {
  const id = `${review}-${field.name}`
  const common = { id, disabled, className: 'bw-input', 'aria-invalid': fault ? true : undefined, 'aria-describedby': `${id}-tip` }
  const typed = { ...common, value, onChange: (event) => set(event.target.value) }
  const kinds = {
    boolean: () => <input {...common} type="checkbox" checked={value} onChange={(event) => set(event.target.checked)} />,
    choice: () => (
      <select {...common} value={value} onChange={(event) => set(Number(event.target.value))}>
        <option value={-1}>–</option>
        {field.choices.map((choice, index) => <option key={index} value={index}>{String(choice)}</option>)}
      </select>
    ),
    date: () => <input {...typed} type="date" />,
    text: () => <input {...typed} type="text" maxLength={field.longest} />,
  }
  const number = () => (
    <input {...typed} type="number" step={field.kind === 'integer' ? 1 : 'any'} min={field.least ?? undefined}
      max={field.most ?? undefined} />
  )
  return (
    <div className={field.kind === 'boolean' ? 'bw-field bw-tick' : 'bw-field'}>
      <label htmlFor={id}>{field.title}{field.required && <span aria-hidden="true"> *</span>}</label>
      {(kinds[field.kind] ?? number)()}
      <div id={`${id}-tip`} className={fault ? 'bw-fault' : 'bw-sub'}>{fault || field.description}</div>
    </div>
  )
}

// The same function for as long as the page is open: one made anew at each repaint would be another component, and
// take what is in focus with it.
const ReviewCard = ((window.bailiwickCards ??= {}).ReviewCard ??= function ReviewCard({ card, call }) {
  const fields = card.fields ?? []
  const [draft, setDraft] = useState(() => drafts.get(card.review_id) ?? {
    comment: '', values: Object.fromEntries(fields.map((field) => [field.name, start(field)])),
  })
  const { comment, values } = draft
  const [busy, setBusy] = useState('')
  const open = card.state === 'open'
  const box = useRef(null)
  // What is wrong may be above what is on the screen.
  useEffect(() => {
    if (busy === '') box.current.querySelector('[aria-invalid]')?.focus()
  }, [busy, JSON.stringify(card.faults ?? {})])

  function change(what) {
    const changed = { ...draft, ...what }
    drafts.set(card.review_id, changed)
    setDraft(changed)
  }

  async function decide(verdict) {
    setBusy(verdict)
    try {
      await call({
        name: 'decide_review',
        payload: {
          review_id: card.review_id, verdict, comment, answer: fields.length ? answerOf(fields, values) : null,
        },
      })
    } finally {
      setBusy('')
    }
  }

  return (
    <section className="bw-card" ref={box} data-review={card.review_id} data-state={card.state} aria-label={card.title}>
      <header className="bw-head">
        {open ? <Clock size={18} aria-hidden="true" /> : <CheckCircle2 size={18} aria-hidden="true" />}
        <div className="bw-grow">
          <div className="bw-title">{card.title}</div>
          <div className="bw-sub">{open ? card.due : card.decided}</div>
        </div>
      </header>
      {card.question && <p className="bw-text">{card.question}</p>}
      {card.reasons.length > 0 && (
        <ul className="bw-reasons">{card.reasons.map((reason) => <li key={reason}>{reason}</li>)}</ul>
      )}
      {card.facts.length > 0 && (
        <details className="bw-more" open={open}>
          <summary>Facts of the case</summary>
          <dl className="bw-facts">
            {card.facts.map((fact) => (
              <div key={fact.label} className={fact.wide ? 'bw-wide' : undefined}><dt>{fact.label}</dt><dd>{fact.value}</dd></div>
            ))}
          </dl>
        </details>
      )}
      {!open && card.comment && <p className="bw-text">“{card.comment}”</p>}
      {card.notice && <p className="bw-notice" role="alert">{card.notice}</p>}
      {open && card.may_decide && (
        <div className="bw-decide">
          {fields.map((field) => (
            <Input key={field.name} review={card.review_id} field={field} value={values[field.name]} disabled={busy !== ''}
              fault={card.faults?.[field.name]} set={(value) => change({ values: { ...values, [field.name]: value } })} />
          ))}
          <Textarea value={comment} onChange={(event) => change({ comment: event.target.value })} maxLength={4000} rows={2}
            placeholder="Comment (kept with the decision)" aria-label="Comment" disabled={busy !== ''} />
          <div className="bw-buttons">
            {card.choices.map((choice, index) => (
              <Button key={choice.value} variant={index === 0 ? 'default' : 'outline'} disabled={busy !== ''}
                onClick={() => decide(choice.value)}>
                {busy === choice.value && <Loader2 className="bw-spin" size={16} aria-hidden="true" />}
                {choice.label}
              </Button>
            ))}
          </div>
        </div>
      )}
    </section>
  )
})

export default <ReviewCard card={props} call={callAction} />
