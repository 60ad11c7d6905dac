"""Chat templates read as transformers reads them: its `apply_chat_template` is the reference."""

import sys
import time

import pytest

pytest.importorskip("jinja2", reason="jinja2 is not installed (extra listwise)")

from dearlite.errors import ModelFileError
from dearlite.templates.chat import ChatTemplate

TURNS = [("system", "Be brief."), ("user", "Who?"), ("assistant", "Edison."), ("user", "And <b>&'é?")]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
LOOP = "{% for m in messages %}"
PLAIN = "[{{ m['role'] }}]{{ m['content'] }}"
# name -> template. Each uses a part of transformers' environment, all of them in published templates.
TEMPLATES = {
    "generation": LOOP + "{% generation %}" + PLAIN + "{% endgeneration %}{% endfor %}",
    "generation, of assistant turns alone": LOOP
    + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<e>{% endgeneration %}"
    + "{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "generation, blanks removed": LOOP + " {%- generation -%} \n" + PLAIN + " {%- endgeneration -%} \n{% endfor %}",
    "generation, on lines of its own": LOOP
    + "\n  {% generation %}\n"
    + PLAIN
    + "\n  {% endgeneration %}\n{% endfor %}",
    "generation, a name set within": LOOP
    + "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{{ m.content }}{% endgeneration %}{{ x }}{% endfor %}",
    "generation, nested": LOOP
    + "{% generation %}a{% generation %}{{ m.content }}{% endgeneration %}b{% endgeneration %}{% endfor %}",
    "continue": LOOP + "{{ m.content }}{% if loop.first %}{% continue %}{% endif %};{% endfor %}",
    "break": LOOP
    + PLAIN
    + "{% endfor %}{% for n in range(9) %}{% if n == 3 %}{% break %}{% endif %}{{ n }}{% endfor %}",
    "tojson": "{{ {'b': 'é<&>', 'a': [1, true, none]} | tojson }}" + LOOP + PLAIN + "{% endfor %}",
    "tojson, indent": "{{ {'b': 'é', 'a': [1]} | tojson(indent=2) }}" + LOOP + PLAIN + "{% endfor %}",
    "tojson, ensure_ascii and sort_keys": "{{ {'b': 'é', 'a': 1} | tojson(ensure_ascii=true, sort_keys=true) }}"
    + LOOP
    + PLAIN
    + "{% endfor %}",
    "tojson, separators": "{{ {'b': 1, 'a': 2} | tojson(separators=(',', ':')) }}" + LOOP + PLAIN + "{% endfor %}",
    "trim_blocks and lstrip_blocks": "{% for m in messages %}\n  {% if true %}\n"
    + PLAIN
    + "\n  {% endif %}\n{% endfor %}\n",
    "raise_exception that is not reached": LOOP
    + "{% if 1 > 2 %}{{ raise_exception('no') }}{% endif %}"
    + PLAIN
    + "{% endfor %}",
    "tools and documents are defined": "{{ tools is defined }}{{ tools is none }}{{ documents is none }}"
    + LOOP
    + PLAIN
    + "{% endfor %}",
    "tokens and namespace": "{{ bos_token }}{% set ns = namespace(n=0) %}"
    + LOOP
    + "{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ m.content | trim }}{{ eos_token }}{% endfor %}{{ ns.n }}",
    "the answer's opener": LOOP + PLAIN + "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
    "macro and slice": "{% macro show(m) %}<{{ m.role }}>{{ m.content }}{% endmacro %}{{ show(messages[0]) }}"
    + "{% for m in messages[1:] %}{{ show(m) }}{% endfor %}",
}


def rendered(source):
    parts = ChatTemplate(source, TOKENS).parts(TURNS)
    return "".join(part.text for part in parts)


@pytest.mark.parametrize("name", TEMPLATES)
def test_prompt_is_that_of_transformers(name):
    reference = pytest.importorskip("transformers.utils.chat_template_utils").render_jinja_template
    messages = [{"role": role, "content": text} for role, text in TURNS]
    (expected,), _ = reference([messages], chat_template=TEMPLATES[name], add_generation_prompt=True, **TOKENS)
    assert rendered(TEMPLATES[name]) == expected


def test_day_is_the_same_on_every_day():
    guarded = (
        "{% if strftime_now is defined %}{% set d = strftime_now('%d %b %Y') %}{% else %}{% set d = '26 Jul 2024' %}"
    )
    source = guarded + "{% endif %}{{ d }}" + LOOP + PLAIN + "{% endfor %}"  # as in Llama 3.2
    assert rendered(source).startswith("26 Jul 2024[system]Be brief.")


@pytest.mark.parametrize(
    "source", [LOOP, "{% unheard %}", "{% generation %}", "{% endgeneration %}", "{{ 1 | unheard }}", "{% break %}"]
)
def test_unreadable_template_names_the_forms_that_need_none(source):
    with pytest.raises(ModelFileError, match=r"cannot be read \(.+\): take --prompt plain or rankvicuna") as caught:
        ChatTemplate(source, TOKENS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "runs for more than 0.2 s"),
        ("{% for i in 'x' * 99999 %}{% for j in 'x' * 99999 %}{% endfor %}{% endfor %}", "runs for more than 0.2 s"),
        ("{% for i in range(2000) %}{{ 'x' * 999 }}{% endfor %}", "a prompt of more than 1000000 characters"),
        ("{{ messages[0].content }}\ue0007\ue001", "private use area"),
        ("{{ 'x' * 10 ** 10 }}", "a value of 10000000000 characters"),
        ("{{ 10 ** 6 * [1, 2] }}", "a value of 2000000 characters, items"),
        ("{{ 9 ** 99999999 }}", "characters, items or bits"),
    ],
)
def test_template_that_never_ends_is_refused(monkeypatch, words, reason):
    if "0.2 s" in reason:
        monkeypatch.setattr("dearlite.templates.chat._LONGEST_S", 0.2)
    before = sys.gettrace()
    with pytest.raises(ModelFileError, match=reason) as caught:
        ChatTemplate(words + "{{ messages[0].content }}", {}).parts([("user", "x")])
    assert "\n" not in str(caught.value)
    assert sys.gettrace() is before


def test_time_in_which_the_machine_is_busy_does_not_count(monkeypatch):
    monkeypatch.setattr("dearlite.templates.chat._LONGEST_S", 0.2)
    template = ChatTemplate("{{ messages[0].content }}{{ pause() }}", {})
    template._template.globals["pause"] = lambda: time.sleep(0.3) or ""
    assert template.parts([("user", "x")])[0].text == "x"


def test_products_of_a_template_are_those_of_python():
    template = ChatTemplate(
        "{{ 2 * 3 }}{{ '-' * 3 }}{{ [1] * 2 }}{{ 2 ** 5 }}{{ 2 * 0.5 }}{{ messages[0].content }}", {}
    )
    assert template.parts([("user", "x")])[0].text == "6---[1, 1]321.0"
