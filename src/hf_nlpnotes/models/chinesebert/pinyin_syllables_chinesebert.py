"""The Mandarin syllables a Chinese character can be read as, with the tones each occurs in.

Written as ``base`` + ``tones``: ``ba12345`` stands for ba1, ba2, ba3, ba4 and ba5. Two marks stand for the neutral
tone, as the released ChineseBERT checkpoints spell it: ``5`` for the syllables whose neutral tone is written with a
5 (``ba5``) and ``0`` for those where no digit is written at all (``bai``). No syllable has both.

The list is closed over every reading that pypinyin 0.38 to 0.55 can give and every row of the released
``pinyin2tensor.json``. Its order is part of the format: a row number of the default table is a position in it.
"""

from __future__ import annotations

SYLLABLES = """
a12345 ai1234 an1234 ang1234 ao1234 ba12345 bai01234 ban0134 bang134 bao1234 bei1345 ben134
beng01234 bi1234 bian1345 biang24 biao134 bie1234 bin0134 bing134 bo12345 bong4 bu01234 ca134
cai1234 can1234 cang1234 cao1234 ce4 cei4 cen12 ceng124 cha1234 chai1234 chan1234 chang01234
chao01234 che1234 chen12345 cheng1234 chi01234 chong1234 chou1234 chu01234 chua134 chuai1234
chuan1234 chuang1234 chui1234 chun123 chuo14 ci1234 cong1234 cou1234 cu1234 cuan124 cui0134 cun1234
cuo1234 da12345 dai0134 dan0134 dang1345 dao01234 de125 dei13 den4 deng134 di01234 dia3 dian1234
diao134 die1234 din4 ding134 diu1 dong134 dou134 du01234 duan134 dui134 dun134 duo01234 e12345
ei1234 en134 eng1 er0234 fa01234 fan1234 fang01234 fei1234 fen1234 feng1234 fiao4 fo2 fou123 fu01234
ga1234 gai134 gan134 gang134 gao134 ge01234 gei3 gen1234 geng134 gong0134 gou134 gu12345 gua1234
guai134 guan134 guang0134 gui134 gun34 guo12345 ha1234 hai01234 han01234 hang1234 hao1234 he01234
hei1 hen1234 heng124 hm0 hng5 hong1234 hou01234 hu01234 hua124 huai245 huan1234 huang12345 hui01234
hun1234 huo12345 ji01234 jia12345 jian0134 jiang1345 jiao01234 jie12345 jin134 jing0134 jiong134
jiu12345 ju01234 juan134 jue1234 jun134 ka13 kai134 kan134 kang1234 kao134 ke12345 kei1 ken134
keng13 kong134 kou134 ku1234 kua134 kuai34 kuan13 kuang1234 kui1234 kun0134 kuo4 la12345 lai234
lan0234 lang01234 lao01234 le145 lei12345 len4 leng1234 li12345 lia3 lian234 liang0234 liao1234
lie12345 lin1234 ling01234 liu1234 lo5 long1234 lou12345 lu01234 luan234 lun1234 luo12345 lv234
lve34 m124 ma12345 mai234 man1234 mang1234 mao1234 me15 mei234 men1245 meng01234 mi01234 mian234
miao1234 mie1245 min023 ming0234 miu34 mo01234 mou1234 mu234 n0234 na12345 nai0234 nan1234 nang12345
nao1234 ne245 nei234 nen4 neng234 ng0234 ni1234 nia1 nian1234 niang234 niao034 nie1234 nin023
ning234 niu1234 nong234 nou234 nu234 nuan234 nun24 nuo234 nv234 nve4 o12345 ou12345 pa1234 pai1234
pan1234 pang1234 pao1234 pei1234 pen01234 peng1234 pi1234 pian1234 piao1234 pie134 pin1234 ping1234
po01234 pou1234 pu01234 qi01234 qia1234 qian01234 qiang1234 qiao1234 qie01234 qin1234 qing01234
qiong124 qiu1234 qu12345 quan01234 que124 qun123 ran234 rang01234 rao234 re234 ren234 reng124 ri4
rong01234 rou234 ru0234 rua2 ruan234 rui234 run234 ruo24 sa0134 sai134 san0134 sang134 sao134 se14
sen13 seng14 sha01234 shai134 shan1234 shang1345 shao1234 she1234 shei2 shen1234 sheng01234 shi12345
shou01234 shu1234 shua134 shuai134 shuan14 shuang134 shui2345 shun34 shuo124 si12345 song1234 sou134
su1234 suan134 sui1234 sun134 suo12345 ta01234 tai01234 tan01234 tang1234 tao1234 te04 tei1 teng0124
ti12345 tian1234 tiao12345 tie1234 ting1234 tong1234 tou12345 tu01234 tuan1234 tui1234 tun01234
tuo1234 wa12345 wai0134 wan1234 wang1234 wei01234 wen01234 weng134 wo134 wong4 wu01234 xi01234
xia1234 xian01234 xiang1234 xiao01234 xie1234 xin01234 xing01234 xiong1234 xiu1234 xu12345 xuan1234
xue1234 xun124 ya12345 yan1234 yang01234 yao1234 ye01234 yi01234 yin01234 ying01234 yo15 yong1234
you01234 yu01234 yuan1234 yue1234 yun01234 za1234 zai134 zan12345 zang134 zao1234 ze024 zei2 zen0134
zeng134 zha12345 zhai1234 zhan1234 zhang0134 zhao01234 zhe12345 zhei4 zhen1234 zheng134 zhi01234
zhong134 zhou01234 zhu1234 zhua13 zhuai134 zhuan1234 zhuang134 zhui134 zhun134 zhuo0124 zi12345
zong0134 zou134 zu1234 zuan134 zui01234 zun1234 zuo12345
"""
