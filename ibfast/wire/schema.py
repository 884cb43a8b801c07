"""The protobuf messages of the wire: names, field numbers, types.

Data only. A message is written as its fields, `name:number:type`, separated by blanks. The types are protobuf's
scalars, `map` (string to string) and the names of other messages; `*` marks a repeated field.

No I/O, no clock, no asyncio.
"""

from __future__ import annotations

__all__ = ["MESSAGES"]

_FROM_GATEWAY = {
    "AccountDataEnd": "accountName:1:string",
    "AccountSummary": "reqId:1:int32 account:2:string tag:3:string value:4:string currency:5:string",
    "AccountSummaryEnd": "reqId:1:int32",
    "AccountUpdateMulti": (
        "reqId:1:int32 account:2:string modelCode:3:string key:4:string value:5:string currency:6:string"
    ),
    "AccountUpdateMultiEnd": "reqId:1:int32",
    "AccountUpdateTime": "timeStamp:1:string",
    "AccountValue": "key:1:string value:2:string currency:3:string accountName:4:string",
    "ApiConfig": "precautions:1:ApiPrecautionsConfig settings:2:ApiSettingsConfig",
    "ApiPrecautionsConfig": (
        "bypassOrderPrecautions:1:bool bypassBondWarning:2:bool bypassNegativeYieldConfirmation:3:bool "
        "bypassCalledBondWarning:4:bool bypassSameActionPairTradeWarning:5:bool "
        "bypassFlaggedAccountsWarning:6:bool bypassPriceBasedVolatilityWarning:7:bool "
        "bypassRedirectOrderWarning:8:bool bypassNoOverfillProtection:9:bool bypassRouteMarketableToBBO:10:bool"
    ),
    "ApiSettingsConfig": (
        "readOnlyApi:1:bool totalQuantityForMutualFunds:2:bool downloadOpenOrdersOnConnection:3:bool "
        "includeVirtualFxPositions:4:bool prepareDailyPnL:5:bool sendStatusUpdatesForVolatilityOrders:6:bool "
        "encodeApiMessages:7:string socketPort:8:int32 useNegativeAutoRange:9:bool createApiMessageLogFile:10:bool "
        "includeMarketDataInLogFile:11:bool exposeTradingScheduleToApi:12:bool "
        "splitInsuredDepositFromCashBalance:13:bool sendZeroPositionsForTodayOnly:14:bool "
        "letApiAccountRequestsSwitchSubscription:15:bool useAccountGroupsWithAllocationMethods:16:bool "
        "loggingLevel:17:string masterClientId:18:int32 bulkDataTimeout:19:int32 componentExchSeparator:20:string "
        "showForexDataIn1_10Pips:21:bool allowForexTradingIn1_10Pips:22:bool "
        "roundAccountValuesToNearestWholeNumber:23:bool sendMarketDataInLotsForUsStocks:24:bool "
        "showAdvancedOrderRejectInUi:25:bool rejectMessagesAboveMaxRate:26:bool "
        "maintainConnectionOnIncorrectFields:27:bool compatibilityModeNasdaqStocks:28:bool "
        "sendInstrumentTimezone:29:string sendForexDataInCompatibilityMode:30:bool "
        "maintainAndResubmitOrdersOnReconnect:31:bool historicalDataMaxSize:32:int32 "
        "autoReportNettingEventContractTrades:33:bool optionExerciseRequestType:34:string "
        "allowLocalhostOnly:35:bool trustedIPs:36:string*"
    ),
    "ComboLeg": (
        "conId:1:int32 ratio:2:int32 action:3:string exchange:4:string openClose:5:int32 shortSalesSlot:6:int32 "
        "designatedLocation:7:string exemptCode:8:int32 perLegPrice:9:double"
    ),
    "CommissionAndFeesReport": (
        "execId:1:string commissionAndFees:2:double currency:3:string realizedPNL:4:double bondYield:5:double "
        "yieldRedemptionDate:6:string"
    ),
    "CompletedOrder": "contract:1:Contract order:2:Order orderState:3:OrderState",
    "CompletedOrdersEnd": "",
    "ConfigResponse": (
        "reqId:1:int32 lockAndExit:2:LockAndExitConfig messages:3:MessageConfig* api:4:ApiConfig orders:5:OrdersConfig"
    ),
    "Contract": (
        "conId:1:int32 symbol:2:string secType:3:string lastTradeDateOrContractMonth:4:string strike:5:double "
        "right:6:string multiplier:7:double exchange:8:string primaryExch:9:string currency:10:string "
        "localSymbol:11:string tradingClass:12:string secIdType:13:string secId:14:string description:15:string "
        "issuerId:16:string deltaNeutralContract:17:DeltaNeutralContract includeExpired:18:bool "
        "comboLegsDescrip:19:string comboLegs:20:ComboLeg* lastTradeDate:21:string"
    ),
    "ContractData": "reqId:1:int32 contract:2:Contract contractDetails:3:ContractDetails",
    "ContractDataEnd": "reqId:1:int32",
    "ContractDescription": "contract:1:Contract derivativeSecTypes:2:string*",
    "ContractDetails": (
        "marketName:1:string minTick:2:string orderTypes:3:string validExchanges:4:string priceMagnifier:5:int32 "
        "underConId:6:int32 longName:7:string contractMonth:8:string industry:9:string category:10:string "
        "subcategory:11:string timeZoneId:12:string tradingHours:13:string liquidHours:14:string evRule:15:string "
        "evMultiplier:16:double secIdList:17:map aggGroup:18:int32 underSymbol:19:string underSecType:20:string "
        "marketRuleIds:21:string realExpirationDate:22:string stockType:23:string minSize:24:string "
        "sizeIncrement:25:string suggestedSizeIncrement:26:string fundName:27:string fundFamily:28:string "
        "fundType:29:string fundFrontLoad:30:string fundBackLoad:31:string fundBackLoadTimeInterval:32:string "
        "fundManagementFee:33:string fundClosed:34:bool fundClosedForNewInvestors:35:bool "
        "fundClosedForNewMoney:36:bool fundNotifyAmount:37:string fundMinimumInitialPurchase:38:string "
        "fundMinimumSubsequentPurchase:39:string fundBlueSkyStates:40:string fundBlueSkyTerritories:41:string "
        "fundDistributionPolicyIndicator:42:string fundAssetType:43:string cusip:44:string issueDate:45:string "
        "ratings:46:string bondType:47:string coupon:48:double couponType:49:string convertible:50:bool "
        "callable:51:bool puttable:52:bool descAppend:53:string nextOptionDate:54:string nextOptionType:55:string "
        "nextOptionPartial:56:bool bondNotes:57:string ineligibilityReasonList:58:IneligibilityReason* "
        "eventContract1:59:string eventContractDescription1:60:string eventContractDescription2:61:string "
        "minAlgoSize:62:string lastPricePrecision:63:string lastSizePrecision:64:string settlementMethod:65:string"
    ),
    "CurrentTime": "currentTime:1:int64",
    "CurrentTimeInMillis": "currentTimeInMillis:1:int64",
    "DeltaNeutralContract": "conId:1:int32 delta:2:double price:3:double",
    "DepthMarketDataDescription": (
        "exchange:1:string secType:2:string listingExch:3:string serviceDataType:4:string aggGroup:5:int32"
    ),
    "DisplayGroupList": "reqId:1:int32 groups:2:string",
    "DisplayGroupUpdated": "reqId:1:int32 contractInfo:2:string",
    "ErrorMessage": "id:1:int32 errorTime:2:int64 errorCode:3:int32 errorMsg:4:string advancedOrderRejectJson:5:string",
    "Execution": (
        "orderId:1:int32 execId:2:string time:3:string acctNumber:4:string exchange:5:string side:6:string "
        "shares:7:string price:8:double permId:9:int64 clientId:10:int32 isLiquidation:11:bool cumQty:12:string "
        "avgPrice:13:double orderRef:14:string evRule:15:string evMultiplier:16:double modelCode:17:string "
        "lastLiquidity:18:int32 isPriceRevisionPending:19:bool submitter:20:string optExerciseOrLapseType:21:int32"
    ),
    "ExecutionDetails": "reqId:1:int32 contract:2:Contract execution:3:Execution",
    "ExecutionDetailsEnd": "reqId:1:int32",
    "FamilyCode": "accountId:1:string familyCode:2:string",
    "FamilyCodes": "familyCodes:1:FamilyCode*",
    "HeadTimestamp": "reqId:1:int32 headTimestamp:2:string",
    "HistogramData": "reqId:1:int32 histogramDataEntries:2:HistogramDataEntry*",
    "HistogramDataEntry": "price:1:double size:2:string",
    "HistoricalData": "reqId:1:int32 historicalDataBars:2:HistoricalDataBar*",
    "HistoricalDataBar": (
        "date:1:string open:2:double high:3:double low:4:double close:5:double volume:6:string WAP:7:string "
        "barCount:8:int32"
    ),
    "HistoricalDataEnd": "reqId:1:int32 startDateStr:2:string endDateStr:3:string",
    "HistoricalDataUpdate": "reqId:1:int32 historicalDataBar:2:HistoricalDataBar",
    "HistoricalNews": "reqId:1:int32 time:2:string providerCode:3:string articleId:4:string headline:5:string",
    "HistoricalNewsEnd": "reqId:1:int32 hasMore:2:bool",
    "HistoricalSchedule": (
        "reqId:1:int32 startDateTime:2:string endDateTime:3:string timeZone:4:string "
        "historicalSessions:5:HistoricalSession*"
    ),
    "HistoricalSession": "startDateTime:1:string endDateTime:2:string refDate:3:string",
    "HistoricalTick": "time:1:int64 price:2:double size:3:string",
    "HistoricalTickBidAsk": (
        "time:1:int64 tickAttribBidAsk:2:TickAttribBidAsk priceBid:3:double priceAsk:4:double sizeBid:5:string "
        "sizeAsk:6:string"
    ),
    "HistoricalTickLast": (
        "time:1:int64 tickAttribLast:2:TickAttribLast price:3:double size:4:string exchange:5:string "
        "specialConditions:6:string"
    ),
    "HistoricalTicks": "reqId:1:int32 historicalTicks:2:HistoricalTick* isDone:3:bool",
    "HistoricalTicksBidAsk": "reqId:1:int32 historicalTicksBidAsk:2:HistoricalTickBidAsk* isDone:3:bool",
    "HistoricalTicksLast": "reqId:1:int32 historicalTicksLast:2:HistoricalTickLast* isDone:3:bool",
    "IneligibilityReason": "id:1:string description:2:string",
    "LockAndExitConfig": "autoLogoffTime:1:string autoLogoffPeriod:2:string autoLogoffType:3:string",
    "ManagedAccounts": "accountsList:1:string",
    "MarketDataType": "reqId:1:int32 marketDataType:2:int32",
    "MarketDepth": "reqId:1:int32 marketDepthData:2:MarketDepthData",
    "MarketDepthData": (
        "position:1:int32 operation:2:int32 side:3:int32 price:4:double size:5:string marketMaker:6:string "
        "isSmartDepth:7:bool"
    ),
    "MarketDepthExchanges": "depthMarketDataDescriptions:1:DepthMarketDataDescription*",
    "MarketDepthL2": "reqId:1:int32 marketDepthData:2:MarketDepthData",
    "MarketRule": "marketRuleId:1:int32 priceIncrements:2:PriceIncrement*",
    "MessageConfig": "id:1:int32 title:2:string message:3:string defaultAction:4:string enabled:5:bool",
    "NewsArticle": "reqId:1:int32 articleType:2:int32 articleText:3:string",
    "NewsBulletin": "newsMsgId:1:int32 newsMsgType:2:int32 newsMessage:3:string originatingExch:4:string",
    "NewsProvider": "providerCode:1:string providerName:2:string",
    "NewsProviders": "newsProviders:1:NewsProvider*",
    "NextValidId": "orderId:1:int32",
    "OpenOrder": "orderId:1:int32 contract:2:Contract order:3:Order orderState:4:OrderState",
    "OpenOrdersEnd": "",
    "Order": (
        "clientId:1:int32 orderId:2:int32 permId:3:int64 parentId:4:int32 action:5:string totalQuantity:6:string "
        "displaySize:7:int32 orderType:8:string lmtPrice:9:double auxPrice:10:double tif:11:string "
        "account:12:string settlingFirm:13:string clearingAccount:14:string clearingIntent:15:string "
        "allOrNone:16:bool blockOrder:17:bool hidden:18:bool outsideRth:19:bool sweepToFill:20:bool "
        "percentOffset:21:double trailingPercent:22:double trailStopPrice:23:double minQty:24:int32 "
        "goodAfterTime:25:string goodTillDate:26:string ocaGroup:27:string orderRef:28:string rule80A:29:string "
        "ocaType:30:int32 triggerMethod:31:int32 activeStartTime:32:string activeStopTime:33:string "
        "faGroup:34:string faMethod:35:string faPercentage:36:string volatility:37:double volatilityType:38:int32 "
        "continuousUpdate:39:bool referencePriceType:40:int32 deltaNeutralOrderType:41:string "
        "deltaNeutralAuxPrice:42:double deltaNeutralConId:43:int32 deltaNeutralOpenClose:44:string "
        "deltaNeutralShortSale:45:bool deltaNeutralShortSaleSlot:46:int32 deltaNeutralDesignatedLocation:47:string "
        "scaleInitLevelSize:48:int32 scaleSubsLevelSize:49:int32 scalePriceIncrement:50:double "
        "scalePriceAdjustValue:51:double scalePriceAdjustInterval:52:int32 scaleProfitOffset:53:double "
        "scaleAutoReset:54:bool scaleInitPosition:55:int32 scaleInitFillQty:56:int32 scaleRandomPercent:57:bool "
        "scaleTable:58:string hedgeType:59:string hedgeParam:60:string algoStrategy:61:string algoParams:62:map "
        "algoId:63:string smartComboRoutingParams:64:map whatIf:65:bool transmit:66:bool "
        "overridePercentageConstraints:67:bool openClose:68:string origin:69:int32 shortSaleSlot:70:int32 "
        "designatedLocation:71:string exemptCode:72:int32 deltaNeutralSettlingFirm:73:string "
        "deltaNeutralClearingAccount:74:string deltaNeutralClearingIntent:75:string discretionaryAmt:76:double "
        "optOutSmartRouting:77:bool startingPrice:78:double stockRefPrice:79:double delta:80:double "
        "stockRangeLower:81:double stockRangeUpper:82:double notHeld:83:bool orderMiscOptions:84:map "
        "solicited:85:bool randomizeSize:86:bool randomizePrice:87:bool referenceContractId:88:int32 "
        "peggedChangeAmount:89:double isPeggedChangeAmountDecrease:90:bool referenceChangeAmount:91:double "
        "referenceExchangeId:92:string adjustedOrderType:93:string triggerPrice:94:double "
        "adjustedStopPrice:95:double adjustedStopLimitPrice:96:double adjustedTrailingAmount:97:double "
        "adjustableTrailingUnit:98:int32 lmtPriceOffset:99:double conditions:100:OrderCondition* "
        "conditionsCancelOrder:101:bool conditionsIgnoreRth:102:bool modelCode:103:string extOperator:104:string "
        "softDollarTier:105:SoftDollarTier cashQty:106:double mifid2DecisionMaker:107:string "
        "mifid2DecisionAlgo:108:string mifid2ExecutionTrader:109:string mifid2ExecutionAlgo:110:string "
        "dontUseAutoPriceForHedge:111:bool isOmsContainer:112:bool discretionaryUpToLimitPrice:113:bool "
        "autoCancelDate:114:string filledQuantity:115:string refFuturesConId:116:int32 autoCancelParent:117:bool "
        "shareholder:118:string imbalanceOnly:119:bool routeMarketableToBbo:120:int32 parentPermId:121:int64 "
        "usePriceMgmtAlgo:122:int32 duration:123:int32 postToAts:124:int32 advancedErrorOverride:125:string "
        "manualOrderTime:126:string minTradeQty:127:int32 minCompeteSize:128:int32 "
        "competeAgainstBestOffset:129:double midOffsetAtWhole:130:double midOffsetAtHalf:131:double "
        "customerAccount:132:string professionalCustomer:133:bool bondAccruedInterest:134:string "
        "includeOvernight:135:bool manualOrderIndicator:136:int32 submitter:137:string deactivate:138:bool "
        "postOnly:139:bool allowPreOpen:140:bool ignoreOpenAuction:141:bool seekPriceImprovement:142:int32 "
        "whatIfType:143:int32 hedgeMaxSize:144:int32 conditionsIncludeOvernight:145:bool"
    ),
    "OrderAllocation": (
        "account:1:string position:2:string positionDesired:3:string positionAfter:4:string "
        "desiredAllocQty:5:string allowedAllocQty:6:string isMonetary:7:bool"
    ),
    "OrderBound": "permId:1:int64 clientId:2:int32 orderId:3:int32",
    "OrderCondition": (
        "type:1:int32 isConjunctionConnection:2:bool isMore:3:bool conId:4:int32 exchange:5:string symbol:6:string "
        "secType:7:string percent:8:int32 changePercent:9:double price:10:double triggerMethod:11:int32 "
        "time:12:string volume:13:int32"
    ),
    "OrderState": (
        "status:1:string initMarginBefore:2:double maintMarginBefore:3:double equityWithLoanBefore:4:double "
        "initMarginChange:5:double maintMarginChange:6:double equityWithLoanChange:7:double "
        "initMarginAfter:8:double maintMarginAfter:9:double equityWithLoanAfter:10:double "
        "commissionAndFees:11:double minCommissionAndFees:12:double maxCommissionAndFees:13:double "
        "commissionAndFeesCurrency:14:string marginCurrency:15:string initMarginBeforeOutsideRTH:16:double "
        "maintMarginBeforeOutsideRTH:17:double equityWithLoanBeforeOutsideRTH:18:double "
        "initMarginChangeOutsideRTH:19:double maintMarginChangeOutsideRTH:20:double "
        "equityWithLoanChangeOutsideRTH:21:double initMarginAfterOutsideRTH:22:double "
        "maintMarginAfterOutsideRTH:23:double equityWithLoanAfterOutsideRTH:24:double suggestedSize:25:string "
        "rejectReason:26:string orderAllocations:27:OrderAllocation* warningText:28:string completedTime:29:string "
        "completedStatus:30:string"
    ),
    "OrderStatus": (
        "orderId:1:int32 status:2:string filled:3:string remaining:4:string avgFillPrice:5:double permId:6:int64 "
        "parentId:7:int32 lastFillPrice:8:double clientId:9:int32 whyHeld:10:string mktCapPrice:11:double"
    ),
    "OrdersConfig": "smartRouting:1:OrdersSmartRoutingConfig",
    "OrdersSmartRoutingConfig": (
        "seekPriceImprovement:1:bool preOpenReroute:2:bool doNotRouteToDarkPools:3:bool defaultAlgorithm:4:string"
    ),
    "PnL": "reqId:1:int32 dailyPnL:2:double unrealizedPnL:3:double realizedPnL:4:double",
    "PnLSingle": (
        "reqId:1:int32 position:2:string dailyPnL:3:double unrealizedPnL:4:double realizedPnL:5:double value:6:double"
    ),
    "PortfolioValue": (
        "contract:1:Contract position:2:string marketPrice:3:double marketValue:4:double averageCost:5:double "
        "unrealizedPNL:6:double realizedPNL:7:double accountName:8:string"
    ),
    "Position": "account:1:string contract:2:Contract position:3:string avgCost:4:double",
    "PositionEnd": "",
    "PositionMulti": (
        "reqId:1:int32 account:2:string contract:3:Contract position:4:string avgCost:5:double modelCode:6:string"
    ),
    "PositionMultiEnd": "reqId:1:int32",
    "PriceIncrement": "lowEdge:1:double increment:2:double",
    "RealTimeBarTick": (
        "reqId:1:int32 time:2:int64 open:3:double high:4:double low:5:double close:6:double volume:7:string "
        "WAP:8:string count:9:int32"
    ),
    "ReceiveFA": "faDataType:1:int32 xml:2:string",
    "ReplaceFAEnd": "reqId:1:int32 text:2:string",
    "RerouteMarketDataRequest": "reqId:1:int32 conId:2:int32 exchange:3:string",
    "RerouteMarketDepthRequest": "reqId:1:int32 conId:2:int32 exchange:3:string",
    "ScannerData": "reqId:1:int32 scannerDataElement:2:ScannerDataElement*",
    "ScannerDataElement": (
        "rank:1:int32 contract:2:Contract marketName:3:string distance:4:string benchmark:5:string "
        "projection:6:string comboKey:7:string"
    ),
    "ScannerParameters": "xml:1:string",
    "SecDefOptParameter": (
        "reqId:1:int32 exchange:2:string underlyingConId:3:int32 tradingClass:4:string multiplier:5:string "
        "expirations:6:string* strikes:7:double*"
    ),
    "SecDefOptParameterEnd": "reqId:1:int32",
    "SmartComponent": "bitNumber:1:int32 exchange:2:string exchangeLetter:3:string",
    "SmartComponents": "reqId:1:int32 smartComponents:2:SmartComponent*",
    "SoftDollarTier": "name:1:string value:2:string displayName:3:string",
    "SoftDollarTiers": "reqId:1:int32 softDollarTiers:2:SoftDollarTier*",
    "SymbolSamples": "reqId:1:int32 contractDescriptions:2:ContractDescription*",
    "TickAttribBidAsk": "bidPastLow:1:bool askPastHigh:2:bool",
    "TickAttribLast": "pastLimit:1:bool unreported:2:bool",
    "TickByTickData": (
        "reqId:1:int32 tickType:2:int32 historicalTickLast:3:HistoricalTickLast "
        "historicalTickBidAsk:4:HistoricalTickBidAsk historicalTickMidPoint:5:HistoricalTick"
    ),
    "TickGeneric": "reqId:1:int32 tickType:2:int32 value:3:double",
    "TickNews": (
        "reqId:1:int32 timestamp:2:int64 providerCode:3:string articleId:4:string headline:5:string extraData:6:string"
    ),
    "TickOptionComputation": (
        "reqId:1:int32 tickType:2:int32 tickAttrib:3:int32 impliedVol:4:double delta:5:double optPrice:6:double "
        "pvDividend:7:double gamma:8:double vega:9:double theta:10:double undPrice:11:double"
    ),
    "TickPrice": "reqId:1:int32 tickType:2:int32 price:3:double size:4:string attrMask:5:int32",
    "TickReqParams": (
        "reqId:1:int32 minTick:2:string bboExchange:3:string snapshotPermissions:4:int32 "
        "lastPricePrecision:5:string lastSizePrecision:6:string"
    ),
    "TickSize": "reqId:1:int32 tickType:2:int32 size:3:string",
    "TickSnapshotEnd": "reqId:1:int32",
    "TickString": "reqId:1:int32 tickType:2:int32 value:3:string",
    "UpdateConfigResponse": (
        "reqId:1:int32 status:2:string message:3:string changedFields:4:string* errors:5:string* "
        "warnings:6:UpdateConfigWarning*"
    ),
    "UpdateConfigWarning": "messageId:1:int32 title:2:string message:3:string",
    "UserInfo": "reqId:1:int32 whiteBrandingId:2:string",
    "VerifyCompleted": "isSuccessful:1:bool errorText:2:string",
    "VerifyMessageApi": "apiData:1:string",
    "WshEventData": "reqId:1:int32 dataJson:2:string",
    "WshMetaData": "reqId:1:int32 dataJson:2:string",
}

_FROM_CLIENT = {
    "CancelContractData": "reqId:1:int32",
    "CancelHeadTimestamp": "reqId:1:int32",
    "CancelHistoricalData": "reqId:1:int32",
    "CancelHistoricalTicks": "reqId:1:int32",
    "CancelMarketData": "reqId:1:int32",
    "CancelMarketDepth": "reqId:1:int32 isSmartDepth:2:bool",
    "CancelRealTimeBars": "reqId:1:int32",
    "CancelTickByTick": "reqId:1:int32",
    "ContractDataRequest": "reqId:1:int32 contract:2:Contract",
    "CurrentTimeInMillisRequest": "",
    "CurrentTimeRequest": "",
    "HeadTimestampRequest": "reqId:1:int32 contract:2:Contract useRTH:3:bool whatToShow:4:string formatDate:5:int32",
    "HistoricalDataRequest": (
        "reqId:1:int32 contract:2:Contract endDateTime:3:string barSizeSetting:4:string duration:5:string "
        "useRTH:6:bool whatToShow:7:string formatDate:8:int32 keepUpToDate:9:bool"
    ),
    "HistoricalTicksRequest": (
        "reqId:1:int32 contract:2:Contract startDateTime:3:string endDateTime:4:string numberOfTicks:5:int32 "
        "whatToShow:6:string useRTH:7:bool ignoreSize:8:bool"
    ),
    "IdsRequest": "numIds:1:int32",
    "ManagedAccountsRequest": "",
    "MarketDataRequest": (
        "reqId:1:int32 contract:2:Contract genericTickList:3:string snapshot:4:bool regulatorySnapshot:5:bool"
    ),
    "MarketDataTypeRequest": "marketDataType:1:int32",
    "MarketDepthRequest": "reqId:1:int32 contract:2:Contract numRows:3:int32 isSmartDepth:4:bool",
    "MatchingSymbolsRequest": "reqId:1:int32 pattern:2:string",
    "OpenOrdersRequest": "",
    "RealTimeBarsRequest": "reqId:1:int32 contract:2:Contract barSize:3:int32 whatToShow:4:string useRTH:5:bool",
    "SetServerLogLevelRequest": "logLevel:1:int32",
    "StartApiRequest": "clientId:1:int32 optionalCapabilities:2:string",
    "TickByTickRequest": "reqId:1:int32 contract:2:Contract tickType:3:string numberOfTicks:4:int32 ignoreSize:5:bool",
}

MESSAGES = {"MapEntry": "key:1:string value:2:string", **_FROM_GATEWAY, **_FROM_CLIENT}
