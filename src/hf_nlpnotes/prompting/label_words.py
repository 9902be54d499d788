"""Ready label words for common Chinese topics and opinions.

A small model knows a topic better through eight words than through its name alone: 房产 may hardly occur in its
pretraining text, 楼盘 and 房价 do. Words of a topic have two characters, so that a text is read once. Use them with
`verbalizer="ready"` in the pipeline, or take and edit a row.

The words are chosen by what the labels mean. Of the topics of news (体育, 财经, 股票, 房产, 教育, 科技, 社会, 时政,
游戏, 娱乐) those words were kept that a small model tells apart on 2,000 titles of THUCNews: a name that means
something else in running text is not among its words (体育 is a school subject, 社会 stands in every essay). Topics
share no word, except those that are part of another (电影 and 音乐 of 娱乐).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

_TOPICS = {
    "体育": "比赛 球员 足球 篮球 冠军 联赛 球队 决赛",
    "财经": "金融 基金 理财 贷款 货币 保险 收益 投资",
    "股票": "股票 股市 股指 个股 股民 股东 持股 新股",
    "房产": "房产 楼市 楼房 住宅 小区 地产 租房 买房",
    "教育": "教育 高考 学校 考试 课程 大学 高校 考研",
    "科技": "软件 网络 芯片 屏幕 数码 智能 系统 设备",
    "社会": "案件 事故 男子 女子 受伤 死亡 犯罪 车祸",
    "时政": "总统 总理 政府 外交 访问 谈判 官员 部长",
    "国际": "国际 外国 美国 海外 各国 欧洲 外长 中东",
    "军事": "军事 军队 战斗 武器 部队 导弹 海军 战争",
    "游戏": "游戏 玩家 网游 手游 电竞 玩法 角色 版本",
    "娱乐": "明星 演员 歌手 导演 艺人 偶像 歌曲 粉丝",
    "汽车": "汽车 轿车 车型 驾驶 新车 油耗 车主 汽油",
    "旅游": "旅游 景区 游客 旅行 景点 酒店 风景 度假",
    "美食": "美食 做菜 味道 餐厅 好吃 食材 菜谱 烹饪",
    "健康": "健康 医生 疾病 治疗 医院 患者 身体 症状",
    "农业": "农业 农民 粮食 种植 农村 蔬菜 养殖 丰收",
    "文化": "文化 文学 传统 作品 书法 展览 诗词 民俗",
    "历史": "历史 古代 皇帝 朝代 将军 文物 战国 帝国",
    "天气": "天气 气温 降雨 台风 下雪 晴天 暴雨 气象",
    "时尚": "时尚 服装 搭配 美容 化妆 潮流 模特 发型",
    "星座": "星座 运势 运气 性格 占卜 生肖 双鱼 白羊",
    "彩票": "彩票 大奖 号码 开奖 奖金 中奖 彩民 投注",
    "家居": "家居 装修 家具 客厅 卧室 厨房 地板 沙发",
    "故事": "故事 小说 从前 传说 童话 人物 情节 讲述",
    "情感": "情感 爱情 婚姻 恋爱 分手 男友 女友 结婚",
    "育儿": "育儿 宝宝 孩子 妈妈 婴儿 儿童 父母 奶粉",
    "宠物": "宠物 猫咪 小狗 狗狗 主人 喂养 猫粮 动物",
    "法律": "法律 法院 律师 判决 起诉 诉讼 法官 合同",
    "科学": "科学 研究 实验 宇宙 物理 化学 生物 发现",
    "环境": "环境 污染 环保 生态 排放 垃圾 空气 保护",
    "交通": "交通 地铁 公交 铁路 高速 机场 航班 堵车",
    "职场": "职场 工作 求职 招聘 面试 简历 同事 工资",
    "音乐": "音乐 歌曲 歌手 唱歌 专辑 乐队 钢琴 旋律",
    "电影": "电影 影片 导演 演员 票房 上映 剧情 影院",
    "艺术": "艺术 绘画 画家 雕塑 油画 舞蹈 画展 美术",
    "宗教": "宗教 佛教 寺庙 信仰 教堂 菩萨 上帝 道教",
    "购物": "购物 商品 商场 打折 优惠 网购 超市 买家",
}

_OPINIONS = {
    "好评": "好 满意 喜欢 不错 推荐 棒 方便 舒服",
    "差评": "差 失望 糟糕 不好 后悔 坏 垃圾 麻烦",
    "中评": "一般 还行 普通 凑合 中等 平常 将就 平淡",
    "高兴": "高兴 开心 快乐 喜悦 幸福 欢喜 愉快 兴奋",
    "悲伤": "悲伤 难过 伤心 痛苦 眼泪 悲痛 哭泣 心碎",
    "愤怒": "愤怒 生气 气愤 恼火 可恶 发火 骂人 怒火",
    "恐惧": "恐惧 害怕 可怕 恐怖 担心 吓人 惊慌 胆小",
    "惊讶": "惊讶 吃惊 意外 震惊 居然 竟然 惊奇 惊人",
    "厌恶": "厌恶 讨厌 恶心 反感 鄙视 嫌弃 烦人 厌烦",
}

_ALIASES = {
    "金融": "财经",
    "股市": "股票",
    "房地产": "房产",
    "政治": "时政",
    "数码": "科技",
    "互联网": "科技",
    "电竞": "游戏",
    "世界": "国际",
    "影视": "娱乐",
    "医疗": "健康",
    "养生": "健康",
    "三农": "农业",
    "气象": "天气",
    "服装": "时尚",
    "理财": "财经",
    "经济": "财经",
    "民生": "社会",
    "法制": "法律",
    "出行": "交通",
    "婚恋": "情感",
    "亲子": "育儿",
    "正面": "好评",
    "负面": "差评",
    "积极": "好评",
    "消极": "差评",
    "褒义": "好评",
    "贬义": "差评",
    "中性": "中评",
    "快乐": "高兴",
    "喜悦": "高兴",
    "难过": "悲伤",
    "伤心": "悲伤",
    "生气": "愤怒",
    "害怕": "恐惧",
    "吃惊": "惊讶",
    "讨厌": "厌恶",
    "满意": "好评",
    "失望": "差评",
}


def _table() -> dict[str, tuple[str, ...]]:
    table = {label: tuple(words.split()) for label, words in {**_TOPICS, **_OPINIONS}.items()}
    for label, like in _ALIASES.items():
        table[label] = tuple(dict.fromkeys((label, *table[like])))
    return table


READY_LABEL_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(_table())
"""Label → its words, for the labels that are known."""


def ready_label_words(labels: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Ready words for each label; a label that has none is its own word.

    Args:
        labels (`Iterable[str]`):
            The labels.

    >>> ready_label_words(["好评", "闲聊"])["闲聊"]
    ('闲聊',)
    """
    return {label: READY_LABEL_WORDS.get(label, (label,)) for label in labels}
