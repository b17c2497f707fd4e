# ruff: noqa: RUF001 - other alphabets on purpose
"""Words without content, by language. They tell languages apart and are left out of the index.

Month names stay out of these lists ("may", "mars"): dates are searched for. So do words of place and order
("before", "up"): leaving them out costs recall.
"""

ENGLISH = """
a about all also am an and any are as at be because been being both but by can could d did didn do does doesn doing
don done each few for from had has hasn have haven having he her here hers him his how i if in into is isn it its just
ll m me more most my no nor not now of on once only or other our ours own re s same she should shouldn so some such t
than that the their theirs them then there these they this those to too us ve very was wasn we were weren what when
where which while who whom whose why will with won would wouldn you your yours
"""
GERMAN = """
aber alle allem allen aller alles als also am an auch auf aus bei beim bin bis bist da damit dann das dass dein deine
deinem deinen deiner dem den denn der des dessen dich die dies diese diesem diesen dieser dieses dir doch dort du
durch ein eine einem einen einer eines er es etwas euch euer eure für gegen hab habe haben hat hatte hatten hier hin
ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ins ist ja jede jedem jeden jeder jedes jetzt kann kein keine
keinem keinen keiner können könnte mal man mein meine meinem meinen meiner mich mir mit muss nach nicht nichts noch
nun nur ob oder ohne sehr sein seine seinem seinen seiner seit selbst sich sie sind so soll sollte sondern über um und
uns unser unsere unter viel vom von vor wann war waren warst warum was weil welche welchem welchen welcher welches wem
wen wenn wer werde werden wessen wie wieder will wir wird wirst wo wollen worden wurde wurden zu zum zur zwischen
"""
FRENCH = """
à ai as au aussi autre aux avais avait avant avec avez avoir avons c ça car ce ceci cela celle celui ces cet cette
chez comme comment d dans de des depuis dont du elle elles en encore est et étaient étais était étant êtes être eu eux
fait faut fut il ils j je jusqu l la là le les leur leurs lui m ma mais me même mes moi mon n ne ni nos notre nous on
ont ou où par pas peu peut plus pour pourquoi qu quand que quel quelle quelles quels qui quoi s sa sans se sera serait
ses si son sont sous sur t ta te tes toi ton tous tout toute toutes très tu un une vos votre vous y
"""
SPANISH = """
a al algo alguna algunas alguno algunos ante antes aquel aquella aquí así aunque cada como cómo con contra cual cuál
cuáles cuando cuándo cuánto de del desde donde dónde durante e el él ella ellas ellos en entre era eran eres es esa
esas ese eso esos esta está están estaba estas este esto estos estoy fue fueron fui ha había han has hasta hay he la
las le les lo los más me mi mí mis mucho muy nada ni no nos nosotros nuestra nuestro o os otra otras otro otros para
pero poco por porque que qué quién quien quienes se sea ser si sí sido sin sobre sois somos son soy su sus también tan
tanto te tengo ti tiene tienen todo todos tu tú tus un una unas uno unos usted ustedes vosotros y ya yo
"""
RUSSIAN = """
а без более бы был была были было быть в вам вас ваш ваша ваши ведь весь во вот все всё всего всех вы где да даже
для до его ее её если есть ещё еще же за здесь и из или им ими их к как какая какие какой какую когда кого кому
которая которые который кто куда ли либо между меня мне много мной мог может можно мой моя моё моего моей моём моем мою
мои моих мы на над надо нам нас наш наша наши не него нее неё ней нет ни них но ну о об один она они оно он от очень по
под почему при про с сам сама сами свой своего своей своих свою себе себя сейчас со так также такая такие такой там
те тебе тебя тем то тобой того тоже той только том тот ту ты твой твоя твои твоего твоей твою у уже хотя чего чей чем
через что чтобы чья эта эти этим этих это этого этой этом этот эту я
"""
STOP_WORDS: dict[str, frozenset[str]] = {
    "english": frozenset(ENGLISH.split()),
    "german": frozenset(word.casefold() for word in GERMAN.split()),
    "french": frozenset(FRENCH.split()),
    "spanish": frozenset(SPANISH.split()),
    "russian": frozenset(RUSSIAN.split()),
}
_MONTHS = {
    "english": "January February March April May June July August September October November December",
    "german": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "french": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "spanish": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "russian": "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
}
MONTHS: dict[str, tuple[str, ...]] = {language: tuple(names.split()) for language, names in _MONTHS.items()}
