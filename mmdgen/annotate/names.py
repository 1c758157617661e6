"""Names as people spell them: bones and morphs in Japanese, Chinese and English, matched without trusting them.

A name only proposes. Sides in names are read so that they can be ignored: which eye closes is decided by the vertices
that move (`eyes.py`). The spellings are facts collected from real models and from the conventions listed in
`reference/mmd-format-and-rendering.md` sections 3 and 4.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_DROPPED = re.compile(r"[\s_\-.,:;・･=+~〜'\"「」『』()（）\[\]【】<>{}/\\|!?。、]+")
# Katakana to hiragana, and the small vowels of either to large ones.
_KANA = {code: code - 0x60 for code in range(ord("ァ"), ord("ヶ") + 1)} | str.maketrans(
    "ぁぃぅぇぉァィゥェォ", "あいうえお" * 2
)
_SIDE_WORDS = re.compile(r"left|right")
_BOTH_WORDS = re.compile(r"両目(?=.)|(?<=.)両目|両方|両眼|(?<=.)両$|^両")
_ORNAMENT = re.compile(r"^[^\w]+(?=\w)|(?<=\w)[^\w]+$")
# A single l or r is a side only where the spelling sets it apart: _L, .R, (l), " R", eyeL, ウィンクR, まばたき_l.
_SIDE_LETTER = re.compile(
    r"(?:(?<=[\s_\-.(（\[【・])[lrLR](?=$|[\s_\-.)）\]】\d])|(?<=[^\W\dA-Za-z])[LRlr](?=$|\d)|(?<=[a-z\d])[LR](?=$))"
)
# English models sort morphs by part of the face: E-Close.L, M-a, e_smile. It must be set apart and ahead of a word.
_PART_LETTER = re.compile(r"^(?:([Ee])|([Mm]))[-_.:](?=[A-Za-z])")


def key(name: str) -> str:
    """Return what two spellings of one name have in common.

    NFKC (half-width kana, full-width digits), case, katakana as hiragana, small vowels as large ones (ウィンク and
    ウインク), and no spaces, brackets or punctuation.
    """
    return _DROPPED.sub("", unicodedata.normalize("NFKC", name).casefold().translate(_KANA))


@dataclass(frozen=True, slots=True)
class ParsedName:
    """A morph name without its side and number: `base` (a `key`), `sided` whether it names a side, `number` or 0."""

    base: str
    sided: bool
    number: int


def parse(name: str) -> ParsedName:
    """Split ``ｳｨﾝｸ２右`` into (``ういんく``, sided, 2), ``Fcl_EYE_Close_L`` into (``fcleyeclose``, sided, 0),
    ``E-Close.L`` into (``eyeclose``, sided, 0)."""
    text = unicodedata.normalize("NFKC", name)
    text = _PART_LETTER.sub(lambda found: "eye_" if found[1] else "mouth_", text)
    text, letters = _SIDE_LETTER.subn(" ", text)
    folded = key(text)
    folded, words = _SIDE_WORDS.subn("", folded)
    folded = _BOTH_WORDS.sub("", _ORNAMENT.sub("", folded)) or folded
    bare = folded.replace("左", "").replace("右", "").replace("片目", "").replace("片", "")
    digits = re.sub(r"\D", "", bare)
    base = re.sub(r"\d+", "", bare)
    return ParsedName(base or bare, bool(letters or words) or bare != folded, int(digits[:4]) if digits and base else 0)


def _keys(text: str) -> frozenset[str]:
    return frozenset(key(word) for word in text.split())


# -- bones ---------------------------------------------------------------------------------------------------------

HEAD_BONE = _keys(
    "頭 头 頭部 头部 あたま head J_Bip_C_Head Bip001Head Bip01Head mixamorigHead 頭ボーン atama Kopf DEF-head"
)
NECK_BONE = _keys(
    "首 首1 首2 頸 颈 脖子 脖 くび neck J_Bip_C_Neck Bip001Neck Bip01Neck mixamorigNeck neck1 首ボーン 颈部 kubi "
    "DEF-neck"
)
CHEST_BONE = _keys(
    "上半身 上半身2 上半身3 胸 胸部 chest spine spine1 spine2 spine3 upperbody upperbody2 upperbody3 upperchest "
    "torso J_Bip_C_Chest J_Bip_C_UpperChest J_Bip_C_Spine Bip001Spine Bip001Spine1 Bip001Spine2 mixamorigSpine2 上身 "
    "上身2"
)
LEFT_EYE_BONE = _keys("左目 左眼 左眼球 eyeL lefteye eye_left LeftEye J_Adj_L_FaceEye 左瞳 Eye_L eyeball_L 目左 目.L")
RIGHT_EYE_BONE = _keys(
    "右目 右眼 右眼球 eyeR righteye eye_right RightEye J_Adj_R_FaceEye 右瞳 Eye_R eyeball_R 目右 目.R"
)

_HEAD_LIKE = re.compile(r"(?:^|[\W_\d])(?:head|頭|头)$")
_NECK_LIKE = re.compile(r"(?:^|[\W_\d])(?:neck|首|脖子|颈)\d?$")


def like_head(name: str) -> bool:
    """Whether a longer bone name ends in head (Armature_Head, bip head); exact spellings are in `HEAD_BONE`."""
    return _HEAD_LIKE.search(unicodedata.normalize("NFKC", name).casefold()) is not None


def like_neck(name: str) -> bool:
    """Whether a longer bone name ends in neck."""
    return _NECK_LIKE.search(unicodedata.normalize("NFKC", name).casefold()) is not None


# Worn or standing things on a head: bones and materials with these in their key are not skull or flat hair.
_WORN = re.compile(
    r"りぼん|ribb?on|帽|ぼうし|べれ|へるめ|helmet|あほ毛|あほげ|ahoge|触角|触覚|呆毛|あんてな|antenna|"
    r"飾|饰|かざり|acc(?!ept)|かちゅ|へあばんど|headband|hairband|へあぴん|hairpin|髪留|髪止|かんざし|簪|冠|crown|tiara|てぃあら|"
    r"へっどほん|へっどふぉん|へっどせっと|headphone|headset|眼鏡|めがね|眼镜|glass|さんぐら|ごーぐる|goggle|"
    r"天使の輪|halo|光輪|まいく|mike|ふーど|hood|ふりる|frill"
)
# The same, unless the name also says hair: 耳前髪, twin_hair, ponytail of a hair material.
_MAYBE_WORN = re.compile(
    r"hat(?!ch|sune)|cap(?!e|t)|耳|みみ(?!ず)|nekomimi|kemono|^ears?|ear[lr]$|角|つの|horn|花|flower|羽|翼|wing|しっぽ|尻尾|"
    r"(?<!de)tail(?!or)|ついん|twin|ぽに|pony|おさげ|お下げ|三つ編|みつあみ|団子|だんご|bun$|^mic"
)
_HAIR = re.compile(r"髪|髮|头发|发|毛|かみ|hair|へあ|ちょんまげ")


def is_accessory(name: str) -> bool:
    """Whether a bone or material is by its name something worn or standing on the head (or hair that hangs free)."""
    folded = key(name)
    if _WORN.search(folded):
        return True
    return _MAYBE_WORN.search(folded) is not None and _HAIR.search(folded) is None


def is_hair(name: str) -> bool:
    """Whether a material is by its name hair and nothing worn in it."""
    folded = key(name)
    return _HAIR.search(folded) is not None and _WORN.search(folded) is None


# -- morphs --------------------------------------------------------------------------------------------------------

BLINK = _keys(
    "まばたき 瞬き 瞬 またたき 瞬目 目閉じ 目を閉じる 目とじ 目閉 閉じ目 閉じる目 閉目 閉眼 闭眼 闭目 眨眼 眨眼睛 "
    "眼閉じ 目瞑り 目つむり つむり 瞑り 瞑る blink eyeblink blinkeye eyesblink blinkeyes blinkboth eyesclosed "
    "eyeclosed eyeclose eyesclose closeeye closeeyes closedeyes closedeye FclEYEClose vrcblink vblink shuteyes "
    "eyesshut eyelidclose 両目閉じ mabataki BlendShape1Blink face.M_F00_000_00_Fcl_EYE_Close eyeCloseBoth "
    "eyelidsclosed 깜빡임 깜빡 눈깜빡임 눈감기"
)
SMILE_EYES = _keys(
    "笑い 笑 笑い目 目笑い 笑目 わらい 笑顔 目笑 目笑顔 笑眼 微笑 目微笑 微笑み ほほえみ 微笑み目 にこ目 ニコ目 "
    "にこにこ 笑颜 微笑眼 眯眼 眯眼笑 smile eyesmile smileeye smileeyes eyessmile happy joy eyejoy FclEYEJoy "
    "FclALLJoy eyehappy happyeyes warai laugh eyelaugh smileclosed smileclose "
    "closesmile closedsmile 웃음 미소 눈웃음"
)
WINK = _keys(
    "ウィンク ういんく うぃんく ウインク wink eyewink winkeye winking 眨单眼 单眼眨 单眨 ウィンク目 uinku 媚眼"
)
MAIN_EYES = _keys("まばたき 笑い ウィンク blink")
# Closed or nearly closed, but neither "normal" nor "smile": never taken, whatever the geometry says.
OTHER_EYES = _keys(
    "なごみ 和み はぅ はう はぅっ はうっ ｷﾘｯ きり きりっ びっくり 驚き 驚く じと目 ジト目 半目 なぬ なぬ! "
    "はちゅ目 はぁと 星目 恐ろしい子 白目 瞳小 瞳大 瞳 たれ目 垂れ目 つり目 calm hau surprised jitome jito stare "
    "wideeye sleepy 眠い 眠そう 下瞼上げ 下まぶた上げ eyesquint cheeksquint squint eyewide うるうる ぐるぐる 悲しむ "
    "怒り 怒 怒り目 威嚇 困る howawa 寝 涙 カメラ目線 lookup lookdown eyelookup eyelookdown eyelookin eyelookout "
    "FclEYESorrow FclEYEAngry FclEYESurprised FclEYESpread FclEYEFun angry sad sorrow fun"
)
NEGATIVE_WORDS = re.compile(
    r"瞳|はいらい|highlight|hl|光|消|off|涙|眉|まゆ|brow|照|頬|口|mouth|睫|lash|びっくり|驚|じと|半目|なごみ|はう|look|wide|"
    r"squint|pupil|iris|白目|星|はあと|はーと|heart|髪|服|しいたけ|ぐるぐる|調整|補正|用$"
)

# Longer names that still say it (垂れ目まばたき, wink_smile); only used where nothing is spelled plainly.
_PARTS = (("ういんく", "wink"), ("wink", "wink"), ("まばたき", "blink"), ("瞬き", "blink"), ("blink", "blink"))

# Best spelling first; the index is the rank.
_MOUTH_RANKS = (
    _keys(
        "あ a aa ah va vaa vrcvaa FclMTHA MTHA moutha 啊 ア 口あ 口a あ口 発音あ 口_あ mouthaa mouthah 「あ」 あー "
        "아 입벌림"
    ),
    _keys("あああ ああ aaa あ大 大あ あ3"),
    _keys(
        "口開け 口開 口あけ 口を開ける 開口 开口 张嘴 张口 張嘴 mouthopen openmouth jawopen 大口 口大 口开 嘴张开 "
        "嘴巴张开 open 口を開く kuchiake"
    ),
    _keys("わ ワ □ お o oh FclMTHO vo 叫び 叫ぶ えー ああ2 ▲ △ Δ 驚き口 ω□ え e eh ええ"),
)
MOUTH_REPEATED = 1  # the rank of ああ and あ大: wider than あ
MOUTH_BY_LETTER = 3  # ranks below this name the shape あ or an open mouth; rank 3 is another open shape


def mouth_rank(parsed: ParsedName) -> int | None:
    """Return how well a name promises the open mouth あ (0 best), or None."""
    for rank, spellings in enumerate(_MOUTH_RANKS):
        if parsed.base in spellings:
            return rank
    return None


def eye_class(parsed: ParsedName) -> str | None:
    """Return ``blink``, ``smile`` or ``wink`` (one eye, either shape) by the name, ``other`` for shapes never taken."""
    base = parsed.base
    if base in BLINK:
        return "blink"
    if base in WINK:
        return "wink"
    if base in SMILE_EYES:
        return "smile"
    if base in OTHER_EYES or NEGATIVE_WORDS.search(base):
        return "other"
    for prefix in ("目", "眼", "eye", "eyes", "facemf", "両目", "face", "bs", "fcl"):
        inner = base.removeprefix(prefix)
        if inner != base and inner:
            if inner in BLINK or inner in {"閉じ", "閉", "close", "closed", "shut", "つむり", "とじ"}:
                return "blink"
            if inner in SMILE_EYES:
                return "smile"
            if inner in WINK:
                return "wink"
    for part, kind in _PARTS:
        if part in base:
            return kind
    return None
