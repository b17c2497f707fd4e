# ruff: noqa: RUF001 - words of many languages, written in their own letters
"""Words that only answer: the default of the setting `replies`."""

_WORDS = """
yes yeah yep yup ok okay sure right go on ahead please continue more next again thanks thank you no nope why
and then so what else do it keep going tell me
да нет ага угу ок окей хорошо ладно давай продолжай продолжайте дальше ещё еще спасибо пожалуйста почему а и
ja nein doch weiter bitte danke gut mach noch mehr warum und
oui non merci encore continuez vas-y d'accord plus pourquoi et
sí si vale claro sigue continúa gracias más por qué favor y adelante
sim não continua obrigado mais sì va bene avanti grazie ancora perché
tak nie dalej proszę dziękuję так ні далі дякую evet hayır devam tamam
是 好 好的 继续 继续吧 对 嗯 谢谢 不 不是 はい いいえ 続けて お願いします ありがとう 네 아니요 계속 해줘
"""
REPLIES = tuple(sorted(set(_WORDS.split())))
