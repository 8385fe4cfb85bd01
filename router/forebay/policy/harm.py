"""What counts as harmful: for each category, acts together with what they are done to.

A word alone says little: one kills time, a process or a person. So each pattern, of RE2 and over
a text in lower case, joins an act with an object, and `HARMLESS` names the settings (a game, a
film, a definition) in which a sentence with such a pair is about something else.
"""

# ruff: noqa: ISC004 - patterns are written in pieces, a line each
from __future__ import annotations

from typing import Literal, get_args

Category = Literal[
    "violence", "weapons", "self_harm", "sexual", "hate", "drugs", "crime", "privacy"
]

CATEGORIES: tuple[str, ...] = get_args(Category)
"""Every category that a policy may name."""


def _any(*lists: str) -> str:
    """Return a group of alternatives, one a word; `_` stands for a space, `~` for any ending."""
    words = " ".join(lists).split()
    return "(?:" + "|".join(w.replace("_", " ").replace("~", r"\w*") for w in words) + ")"


_FEW = r"(?:[\w'-]+ ){0,3}?"
_TWO = r"(?:[\w'-]+ ){0,2}?"
_NEAR = r"[^.?!\n]{0,80}"

# ---- who ---------------------------------------------------------------------------------

_KIN = _any(
    "wife husband spouse partner girlfriend boyfriend ex fiancee? mother mom mum father dad",
    "parents? grand(?:mother|father|parents?|ma|pa) brother sister siblings? son daughter child",
    "children kids? baby babies aunt uncle cousin family in-laws step(?:mother|father)",
    "(?:best_)?friends? enem(?:y|ies) (?:business_)?rivals? neighbou?rs? roommate flatmate",
    "boss manager co-?workers? colleagues? employees? employer teacher professor students?",
    "classmates? landlord tenant housemate doctor dentist therapist nurse lawyer plumber roofer",
    "electrician mechanic babysitter nanny gardener cleaner hairdresser accountant driver client",
    "customer patient crush date bully stalker coach trainer mayor pastor priest tutor barber",
    "waiter waitress barista bartender chef cook butcher baker tailor florist vet pharmacist",
    "surgeon optician psychologist psychiatrist counsel+or banker broker architect carpenter",
    "painter builder gardener handyman mailman postman courier pilot librarian secretary assistant",
    "supervisor team_lead ceo intern nephew niece godmother godfather ~-in-law stepson",
    "stepdaughter twin fiance ex-~ (?:taxi|bus|uber)_driver dog_walker personal_trainer",
)
_ROLE = _any(
    "m[ae]n wom[ae]n boys? girls? guys? persons? humans? (?:human_)?beings? individuals?",
    "strangers? pedestrians? victims? witness(?:es)? hostages? cops? police(?:m[ae]n|wom[ae]n)?",
    "(?:police_)?officers? soldiers? guards? politicians? president prime_minister senators?",
    "governor judges? pope journalists? celebrit(?:y|ies) teenagers? toddlers? infants? citizens?",
    "civilians? protesters? activists? prisoners? refugees? immigrants? migrants? foreigners?",
    "(?:elderly|homeless)_(?:people|person|m[ae]n|wom[ae]n) corpses? dead_bod(?:y|ies)",
)
_ADJECTIVE = _any(
    "gay lesbian bisexual homosexual queer trans(?:gender)? non-?binary asexual lgbtq?\\+? black",
    "white asian african arab latin[oax] hispanic mexican chinese indian pakistani turkish russian",
    "polish jewish muslim christian hindu buddhist sikh catholic roma(?:ni)? indigenous aboriginal",
    "native_american disabled autistic deaf blind mentally_ill obese elderly old young poor",
    "homeless divorced single pregnant unemployed working[-_]class low-income foreign religious",
    "fat overweight bald short ugly illiterate uneducated non-native intersex pansexual straight",
    "married widowed childless infertile vegan american british french german italian irish greek",
    "japanese korean vietnamese filipino cuban colombian brazilian iranian iraqi syrian afghan",
    "israeli palestinian ukrainian romanian bulgarian hungarian nigerian somali kenyan ethiopian",
)
_PEOPLE = _any(
    "people persons? folks? wom[ae]n m[ae]n mothers? fathers? parents? couples? immigrants?",
    "americans? citizens? children kids communit(?:y|ies)",
)
_NAMED = _any(
    "wom[ae]n m[ae]n girls females males gays lesbians bisexuals homosexuals asexuals latin[oax]s",
    "hispanics mexicans indians pakistanis turks russians poles africans arabs asians blacks",
    "whites jews muslims christians hindus buddhists sikhs catholics protestants atheists mormons",
    "gypsies sinti aboriginals native_americans first_nations immigrants migrants refugees",
    "foreigners asylum_seekers veterans (?:ex-)?prisoners minorities",
    "people_(?:on|with|of|in|from|who)(?:_[\\w-]+){1,3}",
)
_GROUP = rf"(?:{_ADJECTIVE} {_PEOPLE}|{_NAMED})"

_ONE = (
    rf"(?:(?:my|our|your|his|her|their|the|an?|some|this|that|those|these|another|other|all|random"
    rf"|innocent|local) (?:[\w-]+ ){{0,2}}?(?:{_KIN}|{_ROLE})|some(?:one|body)|any(?:one|body)"
    r"|every(?:one|body)|(?:other |many |most |more |innocent |the most )*(?:people|humans"
    r"|persons)"
    rf"|humanity|mankind|{_GROUP}|children|kids)"
)
_PERSON = rf"{_ONE}(?:'s|s')?(?:[\s?.!,;:)]|\z)"

# ---- acts --------------------------------------------------------------------------------

_HURT = _any(
    "kill~ murder~ assassinat~ execut~ shoot(?:ing)? stab(?:bing)? strangl~ chok(?:e|ing)",
    "throttl~ suffocat~ smother~ drown~ beat(?:ing)?(?:_up)? punch(?:ing)? kick(?:ing)?",
    "hit(?:ting)? slap(?:ping)? hurt(?:ing)? harm(?:ing)? injur(?:e|ing) wound maim~ mutilat~",
    "tortur(?:e|ing) kidnap~ abduct~ behead~ decapitat~ slay(?:ing)? snip(?:e|ing) hang(?:ing)?",
    "lynch~ bludgeon~ eliminat~ terminat~ get(?:ting)?_rid_of do(?:ing)?_away_with",
    "dispos(?:e|ing)_of hunt(?:ing)?_down tak(?:e|ing)_out knock(?:ing)?_(?:out|unconscious)",
    "burn(?:ing)? attack(?:ing)? ambush~ crush(?:ing)? smash(?:ing)?(?:_in)? shatter(?:ing)?",
    "pierc(?:e|ing) crack(?:ing)?_open slash(?:ing)? slit~ gut(?:ting)? euthani[sz]~",
    "exterminat~ eradicat~ wip(?:e|ing)_out annihilat~ massacr~ slaughter~ butcher~",
    "run(?:ning)?_over whip(?:ping)? bomb(?:ing)? blow(?:ing)?_up chop(?:ping)?(?:_up)?",
    "saw(?:ing)?(?:_up)? dismember~ overpower~ poison~ drug(?:ging)? enslav~ abus(?:e|ing)",
    "terrori[sz]~ intimidat~ threaten~ stalk~ sever(?:ing)? snap(?:ping)? finish(?:ing)?_off",
    "cut(?:ting)?(?:_off|_up)? rip(?:ping)?(?:_off|_out|_apart)? impal~ starv~ obliterat~",
    "destroy~ demolish~ decimat~ bash~ pummel~ hammer~ spear~ silenc~ blind~ paraly[sz]~ crippl~",
)
_COMMIT = _any(
    "commit(?:s|ting)? plan(?:ning)? organi[sz](?:e|ing) carry(?:ing)?_out perpetrat~",
    "engag(?:e|ing)_in get(?:ting)?_away_with stag(?:e|ing) participat(?:e|ing)_in orchestrat~",
    "instigat~ execut(?:e|ing) pull(?:ing)?_off",
)
_MAKE = _any(
    "mak(?:e|ing) creat(?:e|ing) build(?:ing)? construct~ assembl~ produc(?:e|ing) manufactur~",
    "synthesi[sz]~ cook(?:ing)?(?:_up)? brew~ grow(?:ing)? extract~ (?:3d[-_])?print~",
    "get(?:ting)?(?:_hold_of)? obtain~ acquir~ buy(?:ing)? purchas~ order~ sell(?:ing)?",
    "deal(?:ing)? smuggl~ import~ ship(?:ping)? find score plant(?:ing)? detonat~ explod(?:e|ing)",
    "set(?:ting)?_off hid(?:e|ing) inject~ snort~ smok(?:e|ing)",
)
_BODY = _any(
    "skull head face neck throat spine arms? legs? fingers? bones? ribs kneecaps? jaw nose teeth",
    "kidneys? heart eyes? brains? body limbs arter(?:y|ies) wrists? veins? stomach flesh",
)
_BARRED = _any(
    "barred banned denied excluded forbidden prevented stopped restricted kicked removed fired",
    "deported discriminated segregated sterili[sz]ed stripped refused paid_less locked killed",
    "enslaved disallowed prohibited blocked punished silenced expelled",
)
_RIGHT = _any(
    "vot(?:e|ing) marr(?:y|ied|iage) office educat~ universit~ school~ college law~ council kids",
    "children television tv media benefits visas? citizenship rights? equal~ freedom~ beliefs?",
    "express~ jobs? work~ compan(?:y|ies) business~ property elected president politic~ part(?:y"
    "|ies)",
    "pray~ worship~ wear~ rent~ hospitals? doctors? permitted allowed church~ temples? money "
    "loans?",
    "positions? power adopt~ parents? earn~ paid pay salar~ healthcare housing discriminat~",
    "respect~ country societ~ army military serve drive speak reproduc~ enter airplanes? bus",
    "restaurants? public exist trusted hired lead~ referendums? protest~ join~ unions? sports?",
    "doctors? judges? teachers? nurses? pilots? vulnerable seats? borders?",
)
_BAD = _any(
    "inferior weak(?:er)? stupid(?:er)? dumb(?:er)? laz(?:y|ier) dirt(?:y|ier) ugl(?:y|ier) evil",
    "violent criminals? greedy untrustworthy worse worthless less_\\w+ disgusting dangerous",
    "subhuman parasites vermin primitive unintelligent incompetent bad_at a_(?:burden|plague)",
)
_ATROCITY = _any(
    "hitler nazis? third_reich holocaust final_solution genocides? ethnic_cleansing slave_trade",
    "slavery khmer_rouge pol_pot pinochet stalin mussolini franco isis islamic_state al-?qaeda",
    "boko_haram taliban 9/11 auschwitz dachau concentration_camps? gas_chambers? apartheid",
    "jim_crow ku_klux_klan kkk lynchings? (?:mass|school)_shootings? terror(?:ist)?_attacks?",
    "saddam bin_laden idi_amin holodomor srebrenica unit_731 tiananmen killing_fields nanjing",
    "hiroshima manson dahmer bundy unabomber jack_the_ripper conquistadors trail_of_tears lenin "
    "mao",
    "massacres? assassinations? columbine gulags? pogroms? internment_camps? war_crimes?",
    "world_war_(?:2|ii|two) inquisition crusades colonialism",
)
_ADMIRE = _any(
    "replicat~ repeat~ recreat~ emulat~ imitat~ benefits? advantages? upsides? merits?",
    "good_(?:thing|idea) justif~ right_(?:to|about|in) success~ succes methods? bring_back",
    "restor~ reintroduc~ glorif~ prais~ celebrat~ like_under better_off learn_from inspiration",
    "inspired_by in_the_style_of follow~ revive~ improve_on admir~ the_best_thing",
)
_DRUG = _any(
    "(?:crystal_)?meth(?:amphetamines?)? amphetamines? cocaine crack_cocaine crack_pipe heroin lsd",
    "ecstasy mdma molly weed mari[jh]uana cannabis hashish ketamine fentanyl opium oxycontin",
    "oxycodone ghb pcp dmt psilocybin magic_mushrooms (?:anabolic_)?steroids xanax",
    "(?:illegal_|illicit_|street_|hard_)drugs? drugs",
)
_WEAPON = _any(
    "bombs? explosives? grenades? molotov(?:_cocktails?)? landmines? nerve_agents? sarin ricin",
    "anthrax mustard_gas (?:chemical_|biological_|nuclear_)?weapons? bioweapons? ghost_guns?",
    "silencers? napalm thermite firearms? ammunition",
)
_CRIMES = _any(
    "fraud robber(?:y|ies) burglar(?:y|ies) theft larceny arson treason perjury crimes? felony",
    "tax_evasion forgery extortion blackmail vandalism espionage piracy heists? embezzlement",
    "money_laundering human_trafficking phishing scams? bribery sabotage insider_trading",
    "shoplifting looting (?:a_)?coup cyber~ ddos",
)
_PLACES = _any(
    "banks? stores? shops? houses? homes? casinos? vaults? apartments? buildings? offices? safes?",
    "museums? accounts? systems? networks? servers? computers? phones? wi-?fi atms? compan(?:y"
    "|ies)",
    "elections? websites? databases? cars? trains? schools? property facilit(?:y|ies)",
)
_GOODS = _any(
    "house home car motorbike bike bicycle property phone computer windows? t[iy]res? garden",
    "apartment boat shop store business fence truck van belongings laptop reputation vehicle",
)
_SOMEONES = (
    rf"(?:(?:my|our|his|her|their|an?|some|this|that|the) (?:[\w-]+ ){{0,2}}?(?:{_KIN}|{_ROLE})"
    r"(?:'s|s')|some(?:one|body)(?: else)?'s|any(?:one|body)(?: else)?'s|(?:other )?people's"
    r"|celebrit(?:y's|ies')|strangers')"
)
_PRIVATE = _any(
    "(?:home_|private_|personal_|work_|email_)*address(?:es)? (?:[\\w]+_)?(?:phone_)?number",
    "(?:private_|personal_)?e-?mails? social_security ssn passwords? (?:\\w+_)?pins? passport~",
    "medical~ health~ mental_health diagnos[ei]s sexual~ gender_identity criminal~ tax_re~ logins?",
    "(?:facebook|instagram|gmail|bank|netflix|twitter|tinder|snapchat|whatsapp|icloud)~",
    "social_media credit_(?:card|score|report)~ (?:internet_|web_|search_|browsing_)*history",
    "location whereabouts salary income finances net_worth birth_certificate date_of_birth",
    "driver'?s_licen[sc]e licen[sc]e_plate immigration_status religio(?:n|us) political",
    "ethnicity marital_status employment_history private personal text_messages messages diary",
    "nudes union_membership voting_(?:history|record) genetic~ fingerprints? dna blood_type",
)
_TRAIT = _any(
    "union gay lesbian bisexual trans(?:gender)? homosexual jewish muslim pregnant hiv republican",
    "democrat voted? married divorced convicted arrested immigrant disabled depressed atheist",
)
_MINOR = _any(
    "child(?:ren)? kids? minors? underage teen(?:ager)?s? preteens? toddlers? schoolgirls?",
    "little_(?:girl|boy)s?",
)
_EROTIC = _any("porn~ nudes? naked erotic~ sex sexual~ seduc~ fetish")

ASKED: dict[Category, tuple[str, ...]] = {
    "violence": (
        rf"\b{_HURT} {_FEW}{_PERSON}",
        rf"\b{_HURT} (?:in |open |up |off )?(?:an? |the )?(?:human|person's) (?:\w+ )?{_BODY}\b",
        rf"\b{_COMMIT} {_FEW}(?:murder|homicide|massacre|genocide|manslaughter|assassination"
        r"|assault|violence|terrorism|attack|shooting|stabbing|kidnapping|lynching|explosion"
        r"|bombing|torture|infanticide|hate crime|war crime)s?\b",
        rf"\bplan(?:ning)? {_SOMEONES} (?:death|murder|demise)",
        rf"\b(?:knock|beat|blow|cut|rip|smash|tear|burn|bleed|choke|starve|stab) {_PERSON}?{_FEW}"
        r"(?:to death|unconscious|to pieces|apart|alive)\b",
        r"\b(?:become|be) (?:an? )?(?:\w+ )?(?:murderer|serial killer|terrorist|mass shooter)\b|"
        r"\bjoin (?:isis|al-?qaeda|a terrorist|the taliban|the kkk|a neo-?nazi)",
        rf"\b(?:headshot|knockout punch|punch|knife|bullet) (?:on|into|in|to|at) {_FEW}{_PERSON}",
        rf"\bgiv(?:e|ing) {_PERSON}(?:an? )?headshot",
        rf"\bfind {_PERSON}to (?:shoot|kill|stab|beat)\b|\b(?:hire|find|be) (?:an? )?(?:hitman|"
        r"hit man|assassin|contract killer)\b",
        r"\b(?:shoot|bomb|attack|blow(?:ing)? up|explod(?:e|ing)|set(?:ting)? fire to|burn(?:ing)?"
        rf" down|poison) {_FEW}(?:schools?|hospital|church|mosque|synagogue|temple|embassy|airport"
        r"|concert|stadium|mall|crowd|government|parliament|congress|subway|train)\b",
    ),
    "weapons": (
        rf"\b{_MAKE} {_FEW}{_WEAPON}\b",
        r"\b(?:illegal|untraceable|unregistered) (?:guns?|firearms?|rifles?|pistols?)\b",
        rf"\b(?:weapon|gun|explosive|bomb)s?\b{_NEAR}\b(?:to|i use to|use to) (?:kill|shoot"
        r"|hurt)\b",
    ),
    "self_harm": (
        r"\b(?:kill|hang|cut|hurt|harm|drown|starv|poison|shoot|burn|suffocat|strangl|stab)"
        r"(?:e|ing|ting)? (?:off )?myself\b",
        rf"\b{_COMMIT} {_FEW}(?:suicide|self[- ]harm)\b|\b(?:end|tak)(?:e|ing)? my (?:own )?life\b",
        rf"\b{_HURT} (?:open )?my (?:own )?(?:\w+ )?(?:arter(?:y|ies)|wrists?|veins?|throat)\b",
        r"\b(?:painless|easiest|quickest|best|easy|quick)(?:ly)? (?:ways?|methods?)\b[\w ]{0,12} "
        r"(?:to die|of dying)\b|\b(?:want|take|do|use|need|how) (?:i )?to die\b",
        r"\b(?:lethal|fatal|deadly) (?:over)?dose\b|\boverdose on\b|\bpro-?ana\b",
    ),
    "sexual": (
        rf"\b(?:rap(?:e|ing)|molest(?:ing)?|grop(?:e|ing)|groom(?:ing)?|roofie|sexually \w+) "
        rf"{_FEW}{_PERSON}",
        rf"\b{_COMMIT} {_FEW}(?:rape|sexual (?:assault|abuse)|incest|molestation|pa?edophilia"
        r"|bestiality|necrophilia|voyeurism|groping)\b",
        rf"\b{_MINOR}\b[\w ,']{{0,40}}\b{_EROTIC}\b|\b{_EROTIC}\b[\w ,']{{0,30}}\b{_MINOR}\b",
        r"\b(?:become|be) (?:an? )?(?:\w+ )?(?:rapist|pa?edophile|pimp|sex trafficker)\b",
        r"\brevenge porn\b|\bdeepfake (?:porn|nudes?)\b",
    ),
    "hate": (
        rf"\b(?:should|must|ought)(?:n't)? (?:all )?{_GROUP} (?:\w+ ){{0,2}}?(?:not|never)\b",
        rf"\b(?:shouldn't|mustn't) (?:all )?{_GROUP}\b",
        rf"\b(?:should|must|ought|may|can)(?:n't)? (?:all )?{_GROUP} (?:\w+ ){{0,3}}?(?:not|never|"
        rf"be (?:\w+ )?{_BARRED}|earn less|have (?:no|fewer|less)){_NEAR}\b{_RIGHT}\b",
        rf"\bshould (?:all )?{_GROUP} (?:\w+ )?be {_BARRED}\b",
        rf"\b(?:reasons?|why|arguments?|best|better|right)\b[\w ,']{{0,40}}\b{_GROUP} (?:\w+ )?"
        rf"(?:should(?:n't| not)|must(?:n't| not)|not|ought not|don't deserve) {_NEAR}\b{_RIGHT}\b",
        rf"\b(?:took|tak(?:e|ing)|strip~?|remov(?:e|ed|ing)|revok(?:e|ed|ing)) (?:away )?{_GROUP}"
        r"(?:'s?)? (?:\w+ )?(?:rights?|freedom|vote|citizenship|property)\b",
        rf"\b(?:are|is|were) (?:all |most )?{_GROUP} (?:(?:so|just|always|all|much|more|naturally"
        rf"|inherently|genetically|such|really|the) )*{_BAD}\b",
        rf"\b{_GROUP} (?:\w+ )?(?:overstate|exaggerate|lie about|deserved?|had it coming)\b",
        rf"\b{_ADMIRE}\b{_NEAR}\b{_ATROCITY}\b",
        rf"\b{_ATROCITY}\b{_NEAR}\b(?:justified|(?:actually |really |a )+(?:good|great|success)"
        r"|right to|was right|were right|never happened|a hoax|a lie|deserved)\b",
        r"\b(?:why|that|because) (?:is it |it is |it's |would it be )?(?:best|better|good|right"
        r"|fair"
        rf"|justified|ok|okay) (?:for|if|that|to)\b{_NEAR}\b{_GROUP} (?:not|never|were not)\b",
        rf"\b(?:joke|insult|slur)s? (?:about|for|against|on) {_GROUP}\b",
        rf"\b(?:discriminate against|oppress|subjugate|segregate|deport|humiliate) {_GROUP}\b",
    ),
    "drugs": (
        rf"\b{_MAKE} {_FEW}{_DRUG}\b",
        rf"\b(?:how (?:do i|can i|to|do you|much|many|should i)|where can i|best way (?:to|of))\b"
        rf"{_NEAR}\b(?:tak(?:e|ing)|us(?:e|ing)|do|doing|shoot(?:ing)?(?: up)?|cut(?:ting)?) "
        rf"{_TWO}{_DRUG}",
        rf"\b{_MAKE} (?:some|a gram of|an ounce of|a line of|lines of) (?:crack|coke|dope|speed"
        r"|acid)\b",
        r"\b(?:become|find|contact) (?:an? )?(?:\w+ )?drug dealer\b|\bpass (?:an? |my )?drug test",
    ),
    "crime": (
        r"\b(?:rob(?:bing)?|burgl\w+|blackmail\w*|extort\w*|scam(?:ming)?|defraud\w*|mug(?:ging)?"
        r"|pickpocket\w*|impersonat\w+|hack(?:ing)?(?: into)?|spy(?:ing)? on|wiretap\w*"
        rf"|bully(?:ing)?|harass(?:ing)?|bribe|bribing) {_FEW}(?:{_PERSON}|{_PLACES}\b)",
        rf"\b(?:{_COMMIT}|succe\w+ (?:at|in)|benefit from|profit from|make money (?:from|with))"
        rf" {_FEW}{_CRIMES}\b",
        r"\b(?:steal|stealing|shoplift|shoplifting)\b(?: [\w']+){0,6}? (?:without (?:getting"
        r"|being) "
        r"(?:caught|noticed)|from|car|cars|bike|wallet|money|identity|data|jewelry|phone"
        r"|package)\b",
        r"\b(?:launder(?:ing)?|counterfeit(?:ing)?|forg(?:e|ing)|smuggl(?:e|ing)|trafficking) "
        rf"{_TWO}(?:money|cash|bills|banknotes|currency|documents?|passports?|ids?|signatures?"
        r"|people|humans|goods|prescriptions?|che(?:que|ck)s?|organs)\b",
        rf"\b(?:break|breaking|sneak|sneaking) into {_FEW}{_PLACES}\b",
        rf"\b(?:{_HURT}|key|vandali[sz]\w+|demolish\w*|torch|burn down|set fire to|damage|scratch"
        rf"|sabotage|trash|ruin|steal|hotwire) {_SOMEONES} (?:\w+ )?{_GOODS}\b",
        r"\b(?:blow up|burn down|set fire to|torch) (?:an? |the |some )?(?:\w+ )?(?:house|building"
        r"|church|car|bridge|store|shop|hotel|hospital|forest)\b",
        r"\b(?:disabl|bypass|disarm|evad|trick|jam)(?:e|ing)? (?:an?|the|my|their) "
        rf"{_TWO}(?:alarms?|security|locks?|police|metal detector|cctv|breathalyzer|customs)\b",
        r"\b(?:evad|dodg|cheat)(?:e|ing)? (?:on )?(?:my )?(?:taxes|arrest|the police"
        r"|prosecution)\b",
        rf"\b(?:write|create|make|build|develop|spread|spreading) {_TWO}(?:malware|ransomware"
        r"|computer virus|keyloggers?|spyware|phishing|botnet|fake news|disinformation"
        r"|misinformation|fake (?:id|passport|reviews))\b",
        rf"\b(?:hide|dispose of|get rid of|bury|chop up|dissolve|saw) {_FEW}(?:dead bod(?:y|ies)|a "
        r"body|corpses?|murder weapon)\b",
        r"\b(?:become|be) (?:an? )?(?:\w+ )?(?:thief|burglar|con artist|scammer|hitman|drug "
        r"lord)\b|"
        r"\b(?:run|start|set up) (?:an? )?(?:\w+ )?(?:ponzi|pyramid|trafficking|prostitution) ?\w*",
        r"\bwithout getting caught\b|\bget away with it\b",
    ),
    "privacy": (
        rf"\b{_SOMEONES} (?:\w+ )?{_PRIVATE}",
        rf"\b(?:is|does|has|did|was) (?:my|our) {_TWO}{_KIN} (?:\w+ ){{0,5}}?{_TRAIT}\b",
        rf"\bwhere (?:does|do|did) (?:my {_TWO}{_KIN}|some(?:one|body)) (?:live|sleep|park)\b",
        rf"\b(?:track|locate|dox+) {_FEW}(?:my {_TWO}{_KIN}|some(?:one|body))\b",
    ),
}
"""Patterns over what a user asks."""

ANSWERED: dict[Category, tuple[str, ...]] = {
    "violence": (
        r"\b(?:i|we)(?:'ll| will|'m going to| am going to) (?:kill|murder|stab|shoot|hurt) "
        r"(?:you|him|her|them)\b",
        rf"\b(?:you (?:should|must|deserve to)|go and|just) (?:kill|murder|stab|shoot) {_PERSON}",
    ),
    "self_harm": (
        r"\b(?:kill|hang|cut|hurt|harm) yourself\b|\byou should (?:just )?(?:die|end your life)\b",
    ),
    "hate": (
        rf"\b(?:all |most )?{_GROUP} are (?:(?:all|just|naturally|inherently|genetically) "
        rf")*{_BAD}\b",
        rf"\b{_GROUP} (?:should|must) (?:all )?be {_BARRED}\b",
    ),
}
"""Patterns over an answer, wherever they stand in it."""

INSTRUCTS = (
    r"\b(?:you (?:should|can|could|need|will need|must|have to|'ll need)|step \d|first(?:ly)?,"
    r"|next,"
    r"|then,|here(?:'s| is| are) (?:how|the steps|a guide|instructions)|to \w+ (?:an?|the|some"
    r"|your)"
    r"|the (?:best|easiest) way to|make sure|start by|begin by|instructions|simply|how to)\b"
)
"""How a sentence instructs; of an answer, a pattern of `ASKED` counts only beside it."""

_GAMES = _any(
    "call_of_duty gta grand_theft_auto battlefield minecraft fortnite witcher skyrim fallout",
    "assassin's_creed hitman_\\d counter-?strike league_of_legends valorant overwatch doom zelda",
    "the_sims red_dead dark_souls elden_ring world_of_warcraft pokemon pubg halo far_cry",
    "cyberpunk_2077 rust hades tekken mortal_kombat super_mario smash_bros dota",
)
HARMLESS: tuple[str, ...] = (
    rf"\b(?:video ?games?|computer games?|{_GAMES}|in (?:a|the|this|my) (?:\w+ )?game|boss fight"
    r"|npcs?|laser tag|paintball|airsoft|nerf|dungeons (?:and|&) dragons|d&d)\b",
    r"\b(?:chess|checkers|poker|monopoly|tennis|football|soccer|baseball|basketball|hockey|golf"
    r"|badminton|ping[- ]pong|mario kart|scrabble|volleyball|boxing match|fencing|wrestling match"
    r"|shooting range|card game|board game|arm[- ]wrestling)\b",
    r"\b(?:(?:book|novel|story|film|movie|play|script|poem|song|screenplay|scene|character)s?"
    r"(?: that)? (?:i am|i'm|we are|we're) (?:writing|directing|making|working on|producing)"
    r"|(?:in|for|of) (?:a|the|my|this|his|her|an|our) (?:\w+ )?(?:movie|film|novel|book|play"
    r"|short story|story|series|tv show|comic|manga|anime|musical|opera|fairy tale|screenplay))\b",
    r"^\W*(?:what|which)(?:'s| is| are|'re) (?:an? |the )?(?:\w+ )?(?:definitions?|meaning"
    r"|etymology|origin|history|punishment|penalty|sentence|causes?|symptoms?|statistics) (?:of"
    r"|for)"
    r"|\bwhat (?:does|do) .{0,60} means?\b|\bwhat does it mean to\b|\bdefine\b",
    r"^\W*(?:what|who|why|how|when|where|did) (?:was|were|did|happened|had)\b",
    r"\b(?:prevent|stop|avoid|protect (?:against|from|my)|defend against|recogni[sz]e|detect|report"
    r"|help (?:someone|people|my \w+) (?:who|with)|recover from|cope with|survive|safely)\b",
    r"\b(?:star wars|harry potter|hogwarts|game of thrones|breaking bad|lord of the rings|hunger"
    r" games|john wick|godfather|pulp fiction|james bond|sherlock holmes|hamlet|macbeth|shakespeare"
    r"|simpsons|marvel|batman|disney|squid game|walking dead|sopranos|star trek)\b",
    r"\b(?:(?:child|parent|zombie|background|unix|linux|python) process(?:es)?|in (?:python|linux"
    r"|bash|sql|java|windows|docker|kubernetes|excel|photoshop)|photos?|portraits?|photograph\w*"
    r"|camera|video (?:clip|footage))\b",
    r"\bwith (?:laughter|kindness|love|joy|happiness|surprise)\b|\b(?:jupiter|saturn|mars|neptune"
    r"|uranus|the moon|the sun|telepath\w+|telekinesis|teleport\w*|time travel|superpowers?)\b",
    r"\b(?:killing|kill|pass) time\b|\bcan of coke\b|\b(?:steal|stole|stealing) .{0,20}\b(?:heart"
    r"|hearts|show|base|thunder|glance|kiss)\b",
)
"""What makes a sentence with such a pair harmless: games, sports, fiction, definitions, history,
protection, and figures of speech."""

STILL: tuple[str, ...] = (
    r"\b(?:replicat|repeat|recreat|justif|right to|good thing|benefits? of|overstate)\w*",
    r"\bwithout (?:getting|being) caught\b",
)
"""What no setting excuses."""
